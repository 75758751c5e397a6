// Latents to tokens and back on CUDA.
#include "patchify3d.cuh"

namespace syncflow::cuda {

cudaError_t patchify3d_forward(const Patchify3dArgs& a, cudaStream_t stream) {
  const int64_t tokens = a.B * a.grid_t * a.grid_h * a.grid_w;
  if (tokens * a.C == 0) return cudaSuccess;
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    const bool fast = a.Z * a.p * a.q * a.r == 16 && a.C % kPatchChannels == 0 &&
                      aligned16(a.weight) && aligned16(a.out) && aligned16(a.bias.data) &&
                      aligned16(a.positions.data) && a.positions.stride % kPatchChannels == 0;
    const int64_t chunks = ceil_div(tokens, kPatchTokens);
    if (fast)
      launch(patchify3d_kernel<T, kPatchChannels, 16>,
             chunks * ceil_div(a.C, kPatchThreads * kPatchChannels), kPatchThreads, 0, stream, a);
    else
      launch(patchify3d_kernel<T, 1, 0>, chunks * ceil_div(a.C, kPatchThreads), kPatchThreads, 0,
             stream, a);
  });
  return cudaGetLastError();
}

cudaError_t unpatchify3d_forward(const Patchify3dArgs& a, cudaStream_t stream) {
  const int64_t total = a.B * a.Z * a.T * a.H * a.W;
  if (total == 0) return cudaSuccess;
  with_type(a.type, [&](auto type) {
    launch(unpatchify3d_kernel<decltype(type)>, ceil_div(total, 256), 256, 0, stream, a);
  });
  return cudaGetLastError();
}

}  // namespace syncflow::cuda
