// GELU(x + bias) in its tanh form, z s with z = x + bias, s = sigmoid(2 u), u = sqrt(2 / pi) (z +
// 0.044715 z^3): 0.5 (1 + tanh(u)) without the cancellation.
#pragma once

#include "common.cuh"

namespace syncflow::cuda {

constexpr int kGeluThreads = 256;

// 2 u
__device__ __forceinline__ float gelu_argument(float z) {
  return 1.5957691216f * (z + 0.044715f * z * z * z);
}

template <class T>
__device__ __forceinline__ float gelu_sigmoid(float z) {
  return inverse<T>(1.f + exponential<T>(-gelu_argument(z)));
}

// d (z s) / dz. With e = exp(-|2 u|), s (1 - s) = e / (1 + e)^2 loses nothing where s is near 1.
template <class T>
__device__ __forceinline__ float gelu_slope(float z) {
  const float v = gelu_argument(z), e = exponential<T>(-fabsf(v)), r = inverse<T>(1.f + e);
  const float s = v < 0.f ? e * r : r;
  const float near = fminf(fmaxf(z, -30.f), 30.f);  // beyond, e is 0 and z^2 may be infinite
  return s + near * (e * r * r) * 1.5957691216f * (1.f + 0.134145f * near * near);
}

// V numbers per thread, V dividing C. budget: 48 registers, 310 instructions
template <class T, int V>
__global__ void __launch_bounds__(kGeluThreads) bias_gelu_kernel(const BiasGeluArgs a) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kGeluThreads + threadIdx.x) * V;
  if (at >= a.N * a.C) return;
  float x[V], bias[V];
  load(static_cast<const T*>(a.x) + at, x);
  if (a.bias.data) {
    load_either<T>(a.bias.data, a.bias.is_float, at - divide(at, a.C) * a.C, bias);
#pragma unroll
    for (int e = 0; e < V; ++e) x[e] += bias[e];
  }
#pragma unroll
  for (int e = 0; e < V; ++e) x[e] *= gelu_sigmoid<T>(x[e]);
  store(static_cast<T*>(a.out) + at, x);
}

// A thread owns V channels for a chunk of rows, so that the bias's gradient needs no atomics; the
// chunks' sums are added by reduce_bias_kernel. budget: 80 registers, 1060 instructions
template <class T, int V>
__global__ void __launch_bounds__(kGeluThreads, 3) bias_gelu_backward_kernel(const BiasGeluArgs a) {
  const int64_t columns = divide(a.C + kGeluThreads * V - 1, kGeluThreads * V);
  const int64_t chunk = divide(blockIdx.x, columns), column = blockIdx.x - chunk * columns;
  const int64_t c = (column * kGeluThreads + threadIdx.x) * V;
  if (c >= a.C) return;
  const int64_t rows = divide(a.N + a.chunks - 1, a.chunks);
  const int64_t end = (chunk + 1) * rows < a.N ? (chunk + 1) * rows : a.N;
  float bias[V] = {}, sum[V] = {};
  if (a.bias.data) load_either<T>(a.bias.data, a.bias.is_float, c, bias);
#pragma unroll 2
  for (int64_t row = chunk * rows; row < end; ++row) {
    float x[V], grad[V];
    load(static_cast<const T*>(a.x) + row * a.C + c, x);
    load(static_cast<const T*>(a.grad_out) + row * a.C + c, grad);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      grad[e] *= gelu_slope<T>(x[e] + bias[e]);
      sum[e] += grad[e];
    }
    store(static_cast<T*>(a.grad_x) + row * a.C + c, grad);
  }
  if (a.partial) store(a.partial + chunk * a.C + c, sum);
}

// [chunks, C] -> [C]. budget: 40 registers, 100 instructions
template <class T>
__global__ void __launch_bounds__(kGeluThreads) reduce_bias_kernel(const BiasGeluArgs a) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kGeluThreads + threadIdx.x;
  if (c >= a.C) return;
  float sum = 0.f;
#pragma unroll 4
  for (int64_t i = 0; i < a.chunks; ++i) sum += load_one(a.partial + i * a.C + c);
  if (a.grad_bias_is_float)
    store_one(static_cast<float*>(a.grad_bias) + c, sum);
  else
    store_one(static_cast<T*>(a.grad_bias) + c, sum);
}

}  // namespace syncflow::cuda
