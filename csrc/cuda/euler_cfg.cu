// Guidance and the solver's update on CUDA.
#include "euler_cfg.cuh"

namespace syncflow::cuda {

cudaError_t euler_cfg_forward(const EulerCfgArgs& a, cudaStream_t stream) {
  if (a.total == 0) return cudaSuccess;
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    const bool fast = a.total % 8 == 0 && aligned16(a.x) && aligned16(a.conditional.data) &&
                      aligned16(a.null.data) && aligned16(a.out);
    if (fast)
      launch(euler_cfg_kernel<T, 8>, ceil_div(a.total, 256 * 8), 256, 0, stream, a);
    else
      launch(euler_cfg_kernel<T, 1>, ceil_div(a.total, 256), 256, 0, stream, a);
  });
  return cudaGetLastError();
}

}  // namespace syncflow::cuda
