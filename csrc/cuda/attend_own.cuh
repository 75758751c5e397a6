// One more key and value for every row of an attention that is done already: with l the logarithm of
// its softmax's denominator and s the row's score with its own key,
//     out += w (own_v - out),  w = 1 / (1 + exp(l - s)).
// One warp per (row, query, head), in place.
#pragma once

#include "common.cuh"

namespace syncflow::cuda {

constexpr int kOwnWarps = 8;

// budget: 48 registers, 790 instructions
template <class T>
__global__ void __launch_bounds__(kOwnWarps* kWarp) attend_own_kernel(const AttendOwnArgs a) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kOwnWarps + threadIdx.x / kWarp;
  if (item >= a.R * a.N * a.H) return;
  const int64_t token = divide(item, a.H), h = item - token * a.H;
  const int64_t r = divide(token, a.N), n = token - r * a.N;
  // The draws of a context lie side by side: row r is draw r mod K of context r / K.
  const int64_t b = divide(r, a.draws), query = (r - b * a.draws) * a.N + n;
  const int lane = static_cast<int>(threadIdx.x % kWarp), D = static_cast<int>(a.D);
  const T* q = static_cast<const T*>(a.q) + item * a.D;
  const T* k = static_cast<const T*>(a.own_k) + r * a.own_row + h * a.own_head;
  const T* v = static_cast<const T*>(a.own_v) + r * a.own_row + h * a.own_head;
  T* out = static_cast<T*>(a.out) + item * a.D;
  float score = 0.f;
  for (int d = lane; d < D; d += kWarp) score += load_one(q + d) * load_one(k + d);
  score = warp_sum(score) * a.scale;
  const float log_sum = load_one(a.log_sum + (b * a.H + h) * (a.draws * a.N) + query);
  const float weight = 1.f / (1.f + expf(log_sum - score));
  for (int d = lane; d < D; d += kWarp) {
    const float before = load_one(out + d);
    store_one(out + d, before + weight * (load_one(v + d) - before));
  }
}

}  // namespace syncflow::cuda
