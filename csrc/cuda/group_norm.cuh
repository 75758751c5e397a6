// Group normalisation and SiLU of channels-last activations: a pass for the statistics (which also
// adds what is to be added, and stores that sum where it is wanted later), a small one that makes a
// factor and a shift of every (sample, channel) of them, and one that applies these.
//
// A thread owns V channels of every R-th place of a chunk. Its sums are of differences from its
// first value, a pivot, so that a mean far from 0 cancels nothing; threads and chunks are merged as
// means and sums of squares about them, in an order that the shape fixes.
#pragma once

#include "common.cuh"

namespace syncflow::cuda {

constexpr int kGroupThreads = 256;
enum class Sum { kNone, kStored, kPhases };  // what the first pass does beside its statistics

// How a block's threads divide a row of C channels: `columns` threads of V channels, `rows` rows at
// once. Wider rows are walked in tiles.
struct RowSplit {
  int columns, rows, tiles;
};

__device__ __forceinline__ RowSplit row_split(int64_t C, int V) {
  const int columns = static_cast<int>(C) / V;
  if (columns > kGroupThreads)
    return {kGroupThreads, 1, (columns + kGroupThreads - 1) / kGroupThreads};
  return {columns, kGroupThreads / columns, 1};
}

// Where place l of sample n lies in x, in rows of C.
template <Sum kSum>
__device__ __forceinline__ int64_t source_row(const GroupNormArgs& a, int64_t n, int64_t l) {
  if constexpr (kSum != Sum::kPhases) {
    return n * a.L + l;
  } else {
    const auto width = static_cast<uint32_t>(a.width), place = static_cast<uint32_t>(l);
    const uint32_t i = place / width, j = place - i * width;
    const int64_t rows = static_cast<uint32_t>(a.L) / width / 2 + 1, columns = width / 2 + 1;
    const int64_t at = (n * rows + (i + 1) / 2) * columns + (j + 1) / 2;
    return at * 4 + 2 * (i & 1) + (j & 1);
  }
}

// Merges (count, mean, squares) of two sets of numbers, of lanes that hold the other's.
__device__ __forceinline__ void merge(float& count, float& mean, float& squares, float other_count,
                                      float other_mean, float other_squares) {
  const float all = count + other_count, apart = other_mean - mean;
  if (all > 0.f) {
    const float share = other_count / all;
    mean += apart * share;
    squares += other_squares + apart * apart * count * share;
    count = all;
  }
}

// All lanes end with the same numbers: both sides of an exchange merge in the lower lane's order.
__device__ __forceinline__ void warp_merge(float& count, float& mean, float& squares) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int step = kWarp / 2; step; step /= 2) {
    float c = __shfl_xor_sync(kAllLanes, count, step);
    float m = __shfl_xor_sync(kAllLanes, mean, step);
    float s = __shfl_xor_sync(kAllLanes, squares, step);
    if (lane & step) {
      merge(c, m, s, count, mean, squares);
      count = c, mean = m, squares = s;
    } else {
      merge(count, mean, squares, c, m, s);
    }
  }
}

// A block per (sample, chunk). Shared: [rows, C] means and as many sums of squares.
// budget: 112 registers, 2330 instructions
template <class T, int V, Sum kSum>
__global__ void __launch_bounds__(kGroupThreads, 2) group_statistics_kernel(const GroupNormArgs a) {
  SYNCFLOW_DYNAMIC_SHARED(float, means);
  constexpr int kBytes = V * sizeof(T), kBatch = kSum == Sum::kNone ? 4 : 2;
  const int64_t n = divide(blockIdx.x, a.chunks), chunk = blockIdx.x - n * a.chunks;
  const int64_t length = divide(a.L + a.chunks - 1, a.chunks), begin = chunk * length;
  const int64_t end = begin + length < a.L ? begin + length : a.L;
  const RowSplit split = row_split(a.C, V);
  const int C = static_cast<int>(a.C);
  float* squares = means + split.rows * C;
  const int row = threadIdx.x / split.columns, column = threadIdx.x - row * split.columns;
  const T* x = static_cast<const T*>(a.x);
  const T* more = static_cast<const T*>(a.add);

  for (int tile = 0; tile < split.tiles; ++tile) {
    const int c = (tile * split.columns + column) * V;
    if (row >= split.rows || c >= C) continue;
    float before[V] = {}, pivot[V] = {}, sum[V] = {}, square[V] = {};
    if (a.before.data) load_either<T>(a.before.data, a.before.is_float, c, before);
    int count = 0;
    for (int64_t l = begin + row; l < end; l += kBatch * split.rows) {
      Words<kBytes> words[kBatch], added[kBatch];
#pragma unroll
      for (int u = 0; u < kBatch; ++u) {
        const int64_t place = l + u * split.rows;
        if (place < end) {
          words[u] = load_words<kBytes>(x + source_row<kSum>(a, n, place) * C + c);
          if constexpr (kSum == Sum::kStored)
            if (more) added[u] = load_words<kBytes>(more + (n * a.L + place) * C + c);
        }
      }
#pragma unroll
      for (int u = 0; u < kBatch; ++u) {
        const int64_t place = l + u * split.rows;
        if (place < end) {
          float z[V];
          unpack<T, V>(words[u], z);
          if constexpr (kSum == Sum::kStored) {
            if (more) {
              float y[V];
              unpack<T, V>(added[u], y);
#pragma unroll
              for (int e = 0; e < V; ++e) z[e] += y[e];
            }
          }
#pragma unroll
          for (int e = 0; e < V; ++e) z[e] += before[e];
          if constexpr (kSum != Sum::kNone) {
#pragma unroll
            for (int e = 0; e < V; ++e) z[e] = rounded<T>(z[e]);
            store(static_cast<T*>(a.sum) + (n * a.L + place) * C + c, z);
          }
#pragma unroll
          for (int e = 0; e < V; ++e) {
            if (count == 0) pivot[e] = z[e];
            const float apart = z[e] - pivot[e];
            sum[e] += apart;
            square[e] += apart * apart;
          }
          ++count;
        }
      }
    }
    const float one = count ? 1.f / static_cast<float>(count) : 0.f;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const float mean = sum[e] * one;
      means[row * C + c + e] = pivot[e] + mean;
      squares[row * C + c + e] = fmaxf(square[e] - sum[e] * mean, 0.f);
    }
  }
  __syncthreads();

  // A warp per group: rows of the block and channels of the group.
  const int groups = static_cast<int>(a.groups), D = C / groups;
  const int lane = threadIdx.x % kWarp, places = static_cast<int>(end - begin);
  for (int g = threadIdx.x / kWarp; g < groups; g += kGroupThreads / kWarp) {
    float count = 0.f, mean = 0.f, around = 0.f;
    for (int i = lane; i < split.rows * D; i += kWarp) {
      const int r = i / D, at = r * C + g * D + i - r * D;
      const int own = r < places ? (places - r + split.rows - 1) / split.rows : 0;
      merge(count, mean, around, static_cast<float>(own), means[at], squares[at]);
    }
    warp_merge(count, mean, around);
    if (lane == 0) {
      const float both[2] = {mean, around};
      store(a.partial + ((n * a.chunks + chunk) * a.groups + g) * 2, both);
    }
  }
}

// A warp per (sample, group). budget: 64 registers, 1530 instructions
template <class T>
__global__ void __launch_bounds__(kGroupThreads) group_coefficients_kernel(const GroupNormArgs a) {
  const int lane = threadIdx.x % kWarp;
  const int64_t which =
      divide(static_cast<int64_t>(blockIdx.x) * kGroupThreads + threadIdx.x, kWarp);
  if (which >= a.N * a.groups) return;
  const int64_t n = divide(which, a.groups), g = which - n * a.groups, D = divide(a.C, a.groups);
  const int64_t length = divide(a.L + a.chunks - 1, a.chunks);
  float count = 0.f, mean = 0.f, around = 0.f;
#pragma unroll 4
  for (int64_t chunk = lane; chunk < a.chunks; chunk += kWarp) {
    const int64_t left = a.L - chunk * length;
    float both[2];
    load(a.partial + ((n * a.chunks + chunk) * a.groups + g) * 2, both);
    merge(count, mean, around, static_cast<float>((left < length ? left : length) * D), both[0],
          both[1]);
  }
  warp_merge(count, mean, around);
  const float scale = 1.f / sqrtf(around / count + a.eps);
  for (int64_t c = g * D + lane; c < (g + 1) * D; c += kWarp) {
    float weight[1], bias[1], before[1] = {};
    load_either<T>(a.weight.data, a.weight.is_float, c, weight);
    load_either<T>(a.bias.data, a.bias.is_float, c, bias);
    // A stored sum has it already.
    if (a.before.data && !a.sum) load_either<T>(a.before.data, a.before.is_float, c, before);
    const float factor = scale * weight[0];
    store_one(a.coefficients + n * 2 * a.C + c, factor);
    store_one(a.coefficients + (n * 2 + 1) * a.C + c, (before[0] - mean) * factor + bias[0]);
  }
}

// A block per (sample, chunk), the last first: what the statistics read last is still in the cache.
// budget: 80 registers, 990 instructions
template <class T, int V>
__global__ void __launch_bounds__(kGroupThreads, 3) group_apply_kernel(const GroupNormArgs a) {
  constexpr int kBytes = V * sizeof(T), kBatch = 4;
  const int64_t block = a.N * a.chunks - 1 - blockIdx.x;
  const int64_t n = divide(block, a.chunks), chunk = block - n * a.chunks, places = a.front + a.L;
  const int64_t length = divide(places + a.chunks - 1, a.chunks), begin = chunk * length;
  const int64_t end = begin + length < places ? begin + length : places;
  const RowSplit split = row_split(a.C, V);
  const int C = static_cast<int>(a.C);
  const int row = threadIdx.x / split.columns, column = threadIdx.x - row * split.columns;
  const T* z = static_cast<const T*>(a.sum ? a.sum : a.x) + (n * a.L - a.front) * C;
  T* out = static_cast<T*>(a.out) + n * places * C;

  for (int tile = 0; tile < split.tiles; ++tile) {
    const int c = (tile * split.columns + column) * V;
    if (row >= split.rows || c >= C) continue;
    float factor[V], shift[V];
    load(a.coefficients + n * 2 * C + c, factor);
    load(a.coefficients + (n * 2 + 1) * C + c, shift);
    for (int64_t l = begin + row; l < end; l += kBatch * split.rows) {
      Words<kBytes> words[kBatch];
#pragma unroll
      for (int u = 0; u < kBatch; ++u) {
        const int64_t place = l + u * split.rows;
        if (place >= a.front && place < end) words[u] = load_words<kBytes>(z + place * C + c);
      }
#pragma unroll
      for (int u = 0; u < kBatch; ++u) {
        const int64_t place = l + u * split.rows;
        if (place < end) {
          float v[V] = {};
          if (place >= a.front) {
            unpack<T, V>(words[u], v);
#pragma unroll
            for (int e = 0; e < V; ++e) {
              v[e] = v[e] * factor[e] + shift[e];
              if (a.silu) v[e] *= inverse<T>(1.f + exponential<T>(-v[e]));
            }
          }
          store(out + place * C + c, v);
        }
      }
    }
  }
}

}  // namespace syncflow::cuda
