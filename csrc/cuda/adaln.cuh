// LayerNorm and modulation, forward: one warp per row of C channels.
//
// Fast path (C a multiple of 8 up to 8 * 32 * N, aligned rows): lane l holds channels
// 8 (32 i + l) .. + 7 of the row for i < N, so a row of 1152 bf16 is read and written once, in
// 16-byte vectors, and the variance is taken around the mean from registers. Other rows: the same
// arithmetic, element by element, re-reading the row through the L1 cache.
#pragma once

#include "common.cuh"

namespace syncflow::cuda {

constexpr int kRowVector = 8;
constexpr int kForwardWarps = 4;

enum class Norm { kPre, kPreResidual, kPost };

__device__ __forceinline__ int row_channel(int i) {
  return (i * kWarp + static_cast<int>(threadIdx.x % kWarp)) * kRowVector;
}

template <class T, int N>
__device__ __forceinline__ void load_row(const T* row, int channels, float (&v)[N][kRowVector]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int c = row_channel(i);
    if (c < channels) {
      load(row + c, v[i]);
    } else {
#pragma unroll
      for (int e = 0; e < kRowVector; ++e) v[i][e] = 0.f;
    }
  }
}

template <int N>
__device__ __forceinline__ void normalise(int channels, float eps, float (&v)[N][kRowVector],
                                          float& rstd) {
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int e = 0; e < kRowVector; ++e) sum += v[i][e];
  const float mean = warp_sum(sum) / channels;
  float squares = 0.f;
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int e = 0; e < kRowVector; ++e) {
      v[i][e] -= mean;
      if (row_channel(i) < channels) squares += v[i][e] * v[i][e];
    }
  rstd = rsqrtf(warp_sum(squares) / channels + eps);
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int e = 0; e < kRowVector; ++e) v[i][e] *= rstd;
}

// budget: 128 registers, 2180 instructions
template <class T, int N, Norm NORM>
__global__ void __launch_bounds__(kForwardWarps* kWarp, 4) adaln_forward_kernel(const AdalnArgs a) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kForwardWarps + threadIdx.x / kWarp;
  if (row >= a.groups * a.tokens) return;
  const int64_t group = divide(row, a.tokens), start = row * a.channels;
  const int channels = static_cast<int>(a.channels);
  const T* x = static_cast<const T*>(a.x) + start;
  const T* y = static_cast<const T*>(a.y) + start;

  float v[N][kRowVector];
  load_row<T, N>(NORM == Norm::kPost ? y : x, channels, v);
  if constexpr (NORM == Norm::kPreResidual) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int c = row_channel(i);
      if (c >= channels) continue;
      float other[kRowVector], gate[kRowVector];
      load(y + c, other);
      if (a.gate.data) {
        load_either<T>(a.gate.data, a.gate.is_float, group * a.gate.stride + c, gate);
#pragma unroll
        for (int e = 0; e < kRowVector; ++e) other[e] *= gate[e];
      }
      // The norm reads what is stored: the backward pass has nothing else.
#pragma unroll
      for (int e = 0; e < kRowVector; ++e) v[i][e] = rounded<T>(v[i][e] + other[e]);
      if (a.sum) store(static_cast<T*>(a.sum) + start + c, v[i]);
    }
  }
  const float one = a.plain_gain ? 0.f : 1.f;
  float rstd;
  normalise<N>(channels, a.eps, v, rstd);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int c = row_channel(i);
    if (c >= channels) continue;
    float scale[kRowVector], shift[kRowVector];
    load_either<T>(a.scale.data, a.scale.is_float, group * a.scale.stride + c, scale);
    load_either<T>(a.shift.data, a.shift.is_float, group * a.shift.stride + c, shift);
    if constexpr (NORM == Norm::kPost) {
      float base[kRowVector];
      load(x + c, base);
#pragma unroll
      for (int e = 0; e < kRowVector; ++e) v[i][e] = base[e] + (v[i][e] * scale[e] + shift[e]);
    } else {
#pragma unroll
      for (int e = 0; e < kRowVector; ++e) v[i][e] = v[i][e] * (one + scale[e]) + shift[e];
    }
    store(static_cast<T*>(a.out) + start + c, v[i]);
  }
}

// Any C, any alignment. budget: 64 registers, 1010 instructions
template <class T, Norm NORM>
__global__ void __launch_bounds__(kForwardWarps* kWarp)
    adaln_forward_any_kernel(const AdalnArgs a) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kForwardWarps + threadIdx.x / kWarp;
  if (row >= a.groups * a.tokens) return;
  const int64_t group = divide(row, a.tokens), start = row * a.channels;
  const int lane = threadIdx.x % kWarp;
  const T* x = static_cast<const T*>(a.x) + start;
  const T* y = static_cast<const T*>(a.y) + start;
  const T* normed = NORM == Norm::kPre    ? x
                    : NORM == Norm::kPost ? y
                                          : static_cast<T*>(a.sum) + start;
  float one[1], sum = 0.f;
  for (int64_t c = lane; c < a.channels; c += kWarp) {
    float value;
    if constexpr (NORM == Norm::kPreResidual) {
      one[0] = 1.f;
      if (a.gate.data) load_either<T>(a.gate.data, a.gate.is_float, group * a.gate.stride + c, one);
      value = rounded<T>(load_one(x + c) + one[0] * load_one(y + c));
      store_one(static_cast<T*>(a.sum) + start + c, value);
    } else {
      value = load_one(normed + c);
    }
    sum += value;
  }
  const float mean = warp_sum(sum) / a.channels;
  float squares = 0.f;
  for (int64_t c = lane; c < a.channels; c += kWarp) {
    const float centred = load_one(normed + c) - mean;
    squares += centred * centred;
  }
  const float rstd = rsqrtf(warp_sum(squares) / a.channels + a.eps);
  for (int64_t c = lane; c < a.channels; c += kWarp) {
    load_either<T>(a.scale.data, a.scale.is_float, group * a.scale.stride + c, one);
    const float scale = NORM == Norm::kPost || a.plain_gain ? one[0] : 1.f + one[0];
    load_either<T>(a.shift.data, a.shift.is_float, group * a.shift.stride + c, one);
    float value = (load_one(normed + c) - mean) * rstd * scale + one[0];
    if constexpr (NORM == Norm::kPost) value += load_one(x + c);
    store_one(static_cast<T*>(a.out) + start + c, value);
  }
}

// x + gate * y without a norm; V channels per lane. budget: 48 registers, 370 instructions
template <class T, int V>
__global__ void __launch_bounds__(kForwardWarps* kWarp) gate_residual_kernel(const AdalnArgs a) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kForwardWarps + threadIdx.x / kWarp;
  if (row >= a.groups * a.tokens) return;
  const int64_t group = divide(row, a.tokens), start = row * a.channels;
  for (int64_t c = (threadIdx.x % kWarp) * V; c < a.channels; c += kWarp * V) {
    float x[V], y[V], gate[V];
    load(static_cast<const T*>(a.x) + start + c, x);
    load(static_cast<const T*>(a.y) + start + c, y);
    load_either<T>(a.gate.data, a.gate.is_float, group * a.gate.stride + c, gate);
#pragma unroll
    for (int e = 0; e < V; ++e) x[e] += gate[e] * y[e];
    store(static_cast<T*>(a.sum) + start + c, x);
  }
}

}  // namespace syncflow::cuda
