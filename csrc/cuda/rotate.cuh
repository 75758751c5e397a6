// Rotary positions of heads [B, N, H, D], in place or to another tensor. A thread turns V pairs, which
// lie side by side: 2 V numbers of one vector (interleaved pairs), or V numbers of either half.
#pragma once

#include "common.cuh"

namespace syncflow::cuda {

constexpr int kRotateThreads = 256;

// budget: 64 registers, 430 instructions
template <class T, int V, bool INTERLEAVED>
__global__ void __launch_bounds__(kRotateThreads) rotate_kernel(const RotateArgs a) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kRotateThreads + threadIdx.x;
  const int64_t P = a.D / 2, vectors = divide(P, V);
  if (index >= a.B * a.N * a.H * vectors) return;
  const int64_t head = divide(index, vectors), token = divide(head, a.H), b = divide(token, a.N);
  const int64_t pair = (index - head * vectors) * V, h = head - token * a.H, n = token - b * a.N;
  const T* from =
      static_cast<const T*>(a.x) + b * a.x_strides.b + n * a.x_strides.n + h * a.x_strides.h;
  T* to = static_cast<T*>(a.out) + b * a.out_strides.b + n * a.out_strides.n + h * a.out_strides.h;
  float angle[2 * V];
  load(a.rotation + (n * P + pair) * 2, angle);
  if constexpr (INTERLEAVED) {
    float x[2 * V];
    if constexpr (V == 1)
      x[0] = load_one(from + 2 * pair), x[1] = load_one(from + 2 * pair + 1);
    else
      load(from + 2 * pair, x);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float c = angle[2 * i], s = angle[2 * i + 1], first = x[2 * i];
      x[2 * i] = first * c - x[2 * i + 1] * s;
      x[2 * i + 1] = x[2 * i + 1] * c + first * s;
    }
    if constexpr (V == 1)
      store_one(to + 2 * pair, x[0]), store_one(to + 2 * pair + 1, x[1]);
    else
      store(to + 2 * pair, x);
  } else {
    float x[V], y[V];
    load(from + pair, x);
    load(from + P + pair, y);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float c = angle[2 * i], s = angle[2 * i + 1], first = x[i];
      x[i] = first * c - y[i] * s;
      y[i] = y[i] * c + first * s;
    }
    store(to + pair, x);
    store(to + P + pair, y);
  }
}

}  // namespace syncflow::cuda
