// The end of a backward pass through RMSNorm: the warps' sums, added in a fixed order.
#pragma once

#include "common.cuh"

namespace syncflow::cuda {

// [slots, 2, D] -> the gains' gradients [D]; one block per number.
// budget: 40 registers, 270 instructions
template <class T>
__global__ void __launch_bounds__(256) reduce_gains_kernel(const HeadTransform transform, int D) {
  __shared__ float shared[8];
  const int which = blockIdx.x / D, d = blockIdx.x - which * D;
  void* out = which ? transform.grad_weight[1] : transform.grad_weight[0];
  if (!out) return;
  float sum = 0.f;
  for (int64_t i = threadIdx.x; i < transform.slots; i += 256)
    sum += load_one(transform.partial + (i * 2 + which) * D + d);
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = sum;
  __syncthreads();
  if (threadIdx.x) return;
  float total = 0.f;
#pragma unroll
  for (int w = 0; w < 8; ++w) total += shared[w];
  if (which ? transform.grad_weight_is_float[1] : transform.grad_weight_is_float[0])
    store_one(static_cast<float*>(out) + d, total);
  else
    store_one(static_cast<T*>(out) + d, total);
}

}  // namespace syncflow::cuda
