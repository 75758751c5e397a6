// LayerNorm and modulation, backward: a block owns a chunk of one group's tokens, so that sums over
// tokens stay in its registers; the blocks' sums are added in a fixed order by
// reduce_partials_kernel: no atomics, the same bits on every run.
#pragma once

#include "adaln.cuh"

namespace syncflow::cuda {

constexpr int kBackwardWarps = 8;

struct Chunk {
  int64_t group, begin, end;
};

__device__ __forceinline__ Chunk chunk_of_block(const AdalnArgs& a) {
  const int64_t group = divide(blockIdx.x, a.chunks), index = blockIdx.x - group * a.chunks;
  const int64_t size = divide(a.tokens + a.chunks - 1, a.chunks);
  const int64_t end = (index + 1) * size < a.tokens ? (index + 1) * size : a.tokens;
  return {group, group * a.tokens + index * size, group * a.tokens + end};
}

// Adds the warps' sums of one operand and writes them to the block's row of the partial buffer.
template <int N>
__device__ __forceinline__ void write_partial(const float (&sums)[N][kRowVector], int channels,
                                              float* out, float* shared) {
  const int warp = threadIdx.x / kWarp;
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int e = 0; e < kRowVector; ++e) {
      // Channel-major within the vector, so that neighbouring lanes hit neighbouring banks.
      shared[((warp * N + i) * kRowVector + e) * kWarp + threadIdx.x % kWarp] = sums[i][e];
    }
  __syncthreads();
  for (int c = threadIdx.x; c < channels; c += kBackwardWarps * kWarp) {
    const int i = c / (kWarp * kRowVector), lane = c / kRowVector % kWarp, e = c % kRowVector;
    float total = 0.f;
#pragma unroll
    for (int w = 0; w < kBackwardWarps; ++w)
      total += shared[((w * N + i) * kRowVector + e) * kWarp + lane];
    store_one(out + c, total);
  }
  __syncthreads();
}

// The row as it lies in memory: half the registers that its numbers would take.
template <class T, int N>
__device__ __forceinline__ void load_row_words(const T* row, int channels,
                                               Words<kRowVector * sizeof(T)> (&words)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int c = row_channel(i);
    words[i] = c < channels ? load_words<kRowVector * sizeof(T)>(row + c)
                            : Words<kRowVector * sizeof(T)>{};
  }
}

// dx = rstd (g - mean(g) - n mean(g n)) + grad_sum with g = grad_out * (1 + scale), n the normed
// row; sums over tokens: shift grad_out, scale grad_out n, gate dx y.
// budget: 255 registers, 4180 instructions
template <class T, int N, bool RESIDUAL>
__global__ void __launch_bounds__(kBackwardWarps* kWarp, 1)
    adaln_backward_kernel(const AdalnArgs a) {
  __shared__ float shared[kBackwardWarps * N * kRowVector * kWarp];
  const Chunk chunk = chunk_of_block(a);
  const int channels = static_cast<int>(a.channels);
  const float one = a.post_norm ? 0.f : 1.f;
  float sum_gate[RESIDUAL ? N : 1][kRowVector] = {}, sum_shift[N][kRowVector] = {},
                                sum_scale[N][kRowVector] = {};

#pragma unroll 1
  for (int64_t row = chunk.begin + threadIdx.x / kWarp; row < chunk.end; row += kBackwardWarps) {
    const int64_t start = row * a.channels;
    Words<kRowVector * sizeof(T)> x_words[N], g_words[N];
    load_row_words<T, N>(static_cast<const T*>(a.x) + start, channels, x_words);
    load_row_words<T, N>(static_cast<const T*>(a.grad_out) + start, channels, g_words);
    float sum = 0.f, squares = 0.f, sum_g = 0.f, sum_gn = 0.f;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      float x[kRowVector];
      unpack<T, kRowVector>(x_words[i], x);
#pragma unroll
      for (int e = 0; e < kRowVector; ++e) sum += x[e];
    }
    const float mean = warp_sum(sum) / channels;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (row_channel(i) >= channels) continue;
      float x[kRowVector];
      unpack<T, kRowVector>(x_words[i], x);
#pragma unroll
      for (int e = 0; e < kRowVector; ++e) squares += (x[e] - mean) * (x[e] - mean);
    }
    const float rstd = rsqrtf(warp_sum(squares) / channels + a.eps);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int c = row_channel(i);
      if (c >= channels) continue;
      float x[kRowVector], g[kRowVector], scale[kRowVector];
      unpack<T, kRowVector>(x_words[i], x);
      unpack<T, kRowVector>(g_words[i], g);
      load_either<T>(a.scale.data, a.scale.is_float, chunk.group * a.scale.stride + c, scale);
#pragma unroll
      for (int e = 0; e < kRowVector; ++e) {
        const float n = (x[e] - mean) * rstd;
        sum_shift[i][e] += g[e];
        sum_scale[i][e] += g[e] * n;
        const float gained = product(g[e], one + scale[e]);
        sum_g += gained;
        sum_gn += gained * n;
      }
    }
    const float mean_g = warp_sum(sum_g) / channels, mean_gn = warp_sum(sum_gn) / channels;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int c = row_channel(i);
      if (c >= channels) continue;
      float x[kRowVector], g[kRowVector], other[kRowVector];
      unpack<T, kRowVector>(x_words[i], x);
      unpack<T, kRowVector>(g_words[i], g);
      load_either<T>(a.scale.data, a.scale.is_float, chunk.group * a.scale.stride + c, other);
#pragma unroll
      for (int e = 0; e < kRowVector; ++e)
        g[e] = rstd * (product(g[e], one + other[e]) - mean_g - (x[e] - mean) * rstd * mean_gn);
      if constexpr (RESIDUAL) {
        load(static_cast<const T*>(a.grad_sum) + start + c, other);
#pragma unroll
        for (int e = 0; e < kRowVector; ++e) g[e] += other[e];
      }
      store(static_cast<T*>(a.grad_x) + start + c, g);
      if constexpr (RESIDUAL) {
        if (a.gate.data) {
          load(static_cast<const T*>(a.y) + start + c, other);
#pragma unroll
          for (int e = 0; e < kRowVector; ++e) sum_gate[i][e] += g[e] * other[e];
          load_either<T>(a.gate.data, a.gate.is_float, chunk.group * a.gate.stride + c, other);
#pragma unroll
          for (int e = 0; e < kRowVector; ++e) g[e] *= other[e];
        }
        store(static_cast<T*>(a.grad_y) + start + c, g);
      }
    }
  }
  float* partial = a.partial + static_cast<int64_t>(blockIdx.x) * 3 * a.channels;
  if constexpr (RESIDUAL) {
    if (a.gate.data) write_partial<N>(sum_gate, channels, partial, shared);
  }
  write_partial<N>(sum_shift, channels, partial + a.channels, shared);
  write_partial<N>(sum_scale, channels, partial + 2 * a.channels, shared);
}

// Any C: the rows' half, one warp per row; leaves mean and 1/std for the columns' half.
// budget: 64 registers, 1220 instructions
template <class T, bool RESIDUAL>
__global__ void __launch_bounds__(kForwardWarps* kWarp)
    adaln_backward_rows_kernel(const AdalnArgs a) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kForwardWarps + threadIdx.x / kWarp;
  if (row >= a.groups * a.tokens) return;
  const int64_t group = divide(row, a.tokens), start = row * a.channels;
  const int lane = threadIdx.x % kWarp;
  const T* x = static_cast<const T*>(a.x) + start;
  const T* grad = static_cast<const T*>(a.grad_out) + start;
  const float constant = a.post_norm ? 0.f : 1.f;
  float one[1], sum = 0.f, squares = 0.f, sum_g = 0.f, sum_gn = 0.f;
  for (int64_t c = lane; c < a.channels; c += kWarp) sum += load_one(x + c);
  const float mean = warp_sum(sum) / a.channels;
  for (int64_t c = lane; c < a.channels; c += kWarp) {
    const float centred = load_one(x + c) - mean;
    squares += centred * centred;
  }
  const float rstd = rsqrtf(warp_sum(squares) / a.channels + a.eps);
  for (int64_t c = lane; c < a.channels; c += kWarp) {
    load_either<T>(a.scale.data, a.scale.is_float, group * a.scale.stride + c, one);
    const float g = product(load_one(grad + c), constant + one[0]);
    sum_g += g;
    sum_gn += g * (load_one(x + c) - mean) * rstd;
  }
  const float mean_g = warp_sum(sum_g) / a.channels, mean_gn = warp_sum(sum_gn) / a.channels;
  for (int64_t c = lane; c < a.channels; c += kWarp) {
    load_either<T>(a.scale.data, a.scale.is_float, group * a.scale.stride + c, one);
    const float n = (load_one(x + c) - mean) * rstd;
    float g = product(load_one(grad + c), constant + one[0]);
    g = rstd * (g - mean_g - n * mean_gn);
    if constexpr (RESIDUAL) g += load_one(static_cast<const T*>(a.grad_sum) + start + c);
    store_one(static_cast<T*>(a.grad_x) + start + c, g);
    if constexpr (RESIDUAL) {
      if (a.gate.data) {
        load_either<T>(a.gate.data, a.gate.is_float, group * a.gate.stride + c, one);
        g *= one[0];
      }
      store_one(static_cast<T*>(a.grad_y) + start + c, g);
    }
  }
  if (lane == 0) {
    const float stats[2] = {mean, rstd};
    store(a.stats + 2 * row, stats);
  }
}

// Any C: the columns' half, one thread per channel of a chunk of tokens.
// budget: 64 registers, 600 instructions
template <class T, bool RESIDUAL>
__global__ void __launch_bounds__(kBackwardWarps* kWarp)
    adaln_backward_columns_kernel(const AdalnArgs a) {
  const Chunk chunk = chunk_of_block(a);
  float* partial = a.partial + static_cast<int64_t>(blockIdx.x) * 3 * a.channels;
  for (int64_t c = threadIdx.x; c < a.channels; c += kBackwardWarps * kWarp) {
    float gate = 0.f, shift = 0.f, scale = 0.f;
    for (int64_t row = chunk.begin; row < chunk.end; ++row) {
      const int64_t at = row * a.channels + c;
      float stats[2];
      load(a.stats + 2 * row, stats);
      const float g = load_one(static_cast<const T*>(a.grad_out) + at);
      shift += g;
      scale += g * (load_one(static_cast<const T*>(a.x) + at) - stats[0]) * stats[1];
      if constexpr (RESIDUAL) {
        if (a.gate.data)
          gate +=
              load_one(static_cast<T*>(a.grad_x) + at) * load_one(static_cast<const T*>(a.y) + at);
      }
    }
    if (RESIDUAL && a.gate.data) store_one(partial + c, gate);
    store_one(partial + a.channels + c, shift);
    store_one(partial + 2 * a.channels + c, scale);
  }
}

// Of x + gate * y: grad_y = gate * grad and the sum of grad * y over tokens; a thread owns V
// neighbouring channels for all tokens of the chunk. budget: 128 registers, 710 instructions
template <class T, int V>
__global__ void __launch_bounds__(kBackwardWarps* kWarp)
    gate_residual_backward_kernel(const AdalnArgs a) {
  const Chunk chunk = chunk_of_block(a);
  float* partial = a.partial + static_cast<int64_t>(blockIdx.x) * 3 * a.channels;
  for (int64_t c = threadIdx.x * V; c < a.channels; c += kBackwardWarps * kWarp * V) {
    float gate[V], sum[V] = {};
    load_either<T>(a.gate.data, a.gate.is_float, chunk.group * a.gate.stride + c, gate);
#pragma unroll 4
    for (int64_t row = chunk.begin; row < chunk.end; ++row) {
      const int64_t at = row * a.channels + c;
      float g[V], y[V];
      load(static_cast<const T*>(a.grad_sum) + at, g);
      load(static_cast<const T*>(a.y) + at, y);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        sum[e] += g[e] * y[e];
        g[e] *= gate[e];
      }
      store(static_cast<T*>(a.grad_y) + at, g);
    }
    store(partial + c, sum);
  }
}

// [groups, chunks, 3, channels] -> three times [groups, channels].
// budget: 40 registers, 310 instructions
template <class T>
__global__ void __launch_bounds__(256) reduce_partials_kernel(const AdalnArgs a) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (index >= a.groups * 3 * a.channels) return;
  const int64_t row = divide(index, a.channels), c = index - row * a.channels;
  const int64_t group = divide(row, 3), which = row - group * 3;
  void* out = which == 0 ? a.grad_gate : which == 1 ? a.grad_shift : a.grad_scale;
  const bool is_float = which == 0   ? a.grad_gate_is_float
                        : which == 1 ? a.grad_shift_is_float
                                     : a.grad_scale_is_float;
  if (!out) return;
  const float* from = a.partial + (group * a.chunks * 3 + which) * a.channels + c;
  float sum = 0.f;
#pragma unroll 4
  for (int64_t i = 0; i < a.chunks; ++i) sum += load_one(from + i * 3 * a.channels);
  if (is_float)
    store_one(static_cast<float*>(out) + group * a.channels + c, sum);
  else
    store_one(static_cast<T*>(out) + group * a.channels + c, sum);
}

}  // namespace syncflow::cuda
