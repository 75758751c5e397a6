// x + h (null + guidance (conditional - null)), or x + h conditional where there is no null.
#pragma once

#include "common.cuh"

namespace syncflow::cuda {

// V numbers per thread. budget: 48 registers, 110 instructions
template <class T, int V>
__global__ void __launch_bounds__(256) euler_cfg_kernel(const EulerCfgArgs a) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x) * V;
  if (at >= a.total) return;
  float x[V], conditional[V];
  load(static_cast<const T*>(a.x) + at, x);
  load_either<T>(a.conditional.data, a.conditional.is_float, at, conditional);
  if (a.null.data) {
    float null[V];
    load_either<T>(a.null.data, a.null.is_float, at, null);
#pragma unroll
    for (int e = 0; e < V; ++e) conditional[e] = null[e] + a.guidance * (conditional[e] - null[e]);
  }
#pragma unroll
  for (int e = 0; e < V; ++e) x[e] += a.h * conditional[e];
  store(static_cast<T*>(a.out) + at, x);
}

}  // namespace syncflow::cuda
