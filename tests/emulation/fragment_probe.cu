// What the warp's matrix instructions make of known registers: run on a device and on the emulated
// one, the two must agree bit for bit. Not part of the extension.
#include "mma.cuh"

namespace syncflow::cuda {

// words [32, 6]: a lane's four A and two B registers. out [32, 18]: four C of each of the four
// products, the first word transposed and shuffled.
__global__ void fragment_probe_kernel(const uint32_t* words, float* out) {
  const int lane = threadIdx.x;
  uint32_t w[6];
#pragma unroll
  for (int i = 0; i < 6; ++i) w[i] = read<uint32_t>(words + lane * 6 + i);
  float c[4][4] = {};
  mma_k16<bf16>(c[0], w[0], w[1], w[2], w[3], w[4], w[5]);
  mma_k8<bf16>(c[1], w[0], w[1], w[4]);
  mma_k16<fp16>(c[2], w[0], w[1], w[2], w[3], w[4], w[5]);
  mma_k8<fp16>(c[3], w[0], w[1], w[4]);
#pragma unroll
  for (int i = 0; i < 16; ++i) write(out + lane * 18 + i, c[i / 4][i % 4]);
  write(out + lane * 18 + 16, bits<float>(transposed(w[0])));
  write(out + lane * 18 + 17, bits<float>(__shfl_xor_sync(kAllLanes, w[0], 5)));
}

}  // namespace syncflow::cuda

extern "C" __attribute__((visibility("default"))) int fragment_probe(const uint32_t* words,
                                                                     float* out) {
  syncflow::cuda::launch(syncflow::cuda::fragment_probe_kernel, 1, 32, 0, nullptr, words, out);
  return cudaDeviceSynchronize();
}
