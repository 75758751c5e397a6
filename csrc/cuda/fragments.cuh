// A head's rows in the registers of a warp, as the tensor cores take them.
//
// A tile is 8 rows of D 16-bit numbers; lane 4 g + j holds a quarter of row g: of every 32 numbers
// the eight from 8 j (one 16-byte vector), of a remaining 16 the four from 4 j, of a remaining 8
// the two from 2 j. Scores are sums over D, which may be taken in any order as long as both operands
// have the same: so each register of such a tile is an A or a B operand as it stands, no number
// changes lanes, and memory is read in whole vectors. Where rows must be summed over instead
// (P v, and all of the backward pass), transposed() turns a register's 8 x 8 block; the product
// then comes out in this same layout and is stored in the same vectors.
#pragma once

#include "mma.cuh"

namespace syncflow::cuda {

template <int D>
struct Tile {
  static_assert(D % 8 == 0);
  static constexpr int kRegisters = D / 8;
  static constexpr int kWide = D / 32;           // 16-byte vectors
  static constexpr bool kHalf = D % 32 >= 16;    // one of 8 bytes
  static constexpr bool kQuarter = D % 16 == 8;  // one of 4 bytes
  static constexpr int kHalfAt = 4 * kWide, kQuarterAt = kHalfAt + (kHalf ? 2 : 0);
  uint32_t w[kRegisters];

  static __device__ __forceinline__ int row() { return threadIdx.x % kWarp / 4; }
  static __device__ __forceinline__ int quarter() { return threadIdx.x % 4; }

  // The first of the two numbers in register i.
  static __device__ __forceinline__ int dim(int i) {
    if (i < kHalfAt) return 32 * (i / 4) + 8 * quarter() + 2 * (i % 4);
    if (kHalf && i < kHalfAt + 2) return 32 * kWide + 4 * quarter() + 2 * (i - kHalfAt);
    return D - 8 + 2 * quarter();
  }

  template <class T>
  __device__ __forceinline__ void load(const T* row) {
#pragma unroll
    for (int c = 0; c < kWide; ++c) {
      const auto words = load_words<16>(row + 32 * c + 8 * quarter());
#pragma unroll
      for (int p = 0; p < 4; ++p) w[4 * c + p] = words.w[p];
    }
    if constexpr (kHalf) {
      const auto words = load_words<8>(row + 32 * kWide + 4 * quarter());
      w[kHalfAt] = words.w[0], w[kHalfAt + 1] = words.w[1];
    }
    if constexpr (kQuarter) w[kQuarterAt] = load_words<4>(row + D - 8 + 2 * quarter()).w[0];
  }

  template <class T>
  __device__ __forceinline__ void store(T* row) const {
#pragma unroll
    for (int c = 0; c < kWide; ++c)
      store_words<16>(row + 32 * c + 8 * quarter(),
                      {w[4 * c], w[4 * c + 1], w[4 * c + 2], w[4 * c + 3]});
    if constexpr (kHalf)
      store_words<8>(row + 32 * kWide + 4 * quarter(), {w[kHalfAt], w[kHalfAt + 1]});
    if constexpr (kQuarter) store_words<4>(row + D - 8 + 2 * quarter(), {w[kQuarterAt]});
  }

  // Row `t` of a tensor whose rows lie `stride` apart; beyond `end` zeros.
  template <class T>
  __device__ __forceinline__ void load_or_zero(const T* base, int64_t stride, int t, int end) {
    if (t < end) {
      load(base + t * stride);
    } else {
#pragma unroll
      for (int i = 0; i < kRegisters; ++i) w[i] = 0;
    }
  }
};

// Sum over the four lanes of a row.
__device__ __forceinline__ float row_sum(float v) {
  v += __shfl_xor_sync(kAllLanes, v, 1);
  return v + __shfl_xor_sync(kAllLanes, v, 2);
}

__device__ __forceinline__ float row_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, 1));
  return fmaxf(v, __shfl_xor_sync(kAllLanes, v, 2));
}

// The numbers of a small float table [D] (or [D] of the token type) that belong to registers
// FIRST .. FIRST + COUNT - 1, COUNT of them side by side in memory.
template <class T, int D, int COUNT>
__device__ __forceinline__ void load_gain(const SmallRows& rows, int first, float (&v)[2 * COUNT]) {
  load_either<T>(rows.data, rows.is_float, Tile<D>::dim(first), v);
}

// (cos, sin) of COUNT pairs of row t.
template <int D, int COUNT>
__device__ __forceinline__ void load_rotation(const float* table, int t, int first,
                                              float (&v)[2 * COUNT]) {
  load(table + static_cast<int64_t>(t) * D + Tile<D>::dim(first), v);
}

// Calls f(first register, count) for every vector of a tile, count known at compile time.
template <int COUNT>
struct Count {
  static constexpr int value = COUNT;
};

template <int D, class F>
__device__ __forceinline__ void each_vector(F&& f) {
#pragma unroll
  for (int c = 0; c < Tile<D>::kWide; ++c) f(4 * c, Count<4>{});
  if constexpr (Tile<D>::kHalf) f(Tile<D>::kHalfAt, Count<2>{});
  if constexpr (Tile<D>::kQuarter) f(Tile<D>::kQuarterAt, Count<1>{});
}

// One over the root mean square of every row: a thread's part of its row, summed over the row's.
template <class T, int D>
__device__ __forceinline__ float inverse_rms(const Tile<D>& tile, float eps) {
  float squares = 0.f;
#pragma unroll
  for (int i = 0; i < Tile<D>::kRegisters; ++i) {
    const float2 x = Pair<T>::unpack(tile.w[i]);
    squares += x.x * x.x + x.y * x.y;
  }
  return rsqrtf(row_sum(squares) * (1.f / D) + eps);
}

// RMSNorm and rotation of a tile in place, its rows numbered t.
template <class T, int D>
__device__ __forceinline__ void norm_rope(Tile<D>& tile, const HeadTransform& transform, int which,
                                          int t, int end) {
  const SmallRows gain = transform.gain(which);
  const float rstd = gain.data ? inverse_rms<T>(tile, transform.eps) : 1.f;
  each_vector<D>([&](int first, auto count) {
    constexpr int kCount = decltype(count)::value;
    float w[2 * kCount], angle[2 * kCount];
    if (gain.data) load_gain<T, D, kCount>(gain, first, w);
    const bool rotate = transform.rotation && t < end;
    if (rotate) load_rotation<D, kCount>(transform.rotation, t, first, angle);
#pragma unroll
    for (int p = 0; p < kCount; ++p) {
      float2 x = Pair<T>::unpack(tile.w[first + p]);
      if (gain.data) x = {x.x * rstd * w[2 * p], x.y * rstd * w[2 * p + 1]};
      if (rotate) {
        const float c = angle[2 * p], s = angle[2 * p + 1];
        x = {x.x * c - x.y * s, x.y * c + x.x * s};
      }
      tile.w[first + p] = Pair<T>::pack(x.x, x.y);
    }
  });
}

// scores += a b^T over D, for 16 rows of a (two tiles) and 8 of b.
template <class T, int D>
__device__ __forceinline__ void multiply_rows(float (&c)[4], const Tile<D>& low,
                                              const Tile<D>& high, const Tile<D>& b) {
#pragma unroll
  for (int i = 0; i + 1 < Tile<D>::kRegisters; i += 2)
    mma_k16<T>(c, low.w[i], high.w[i], low.w[i + 1], high.w[i + 1], b.w[i], b.w[i + 1]);
  if constexpr (Tile<D>::kRegisters % 2) {
    constexpr int kLast = Tile<D>::kRegisters - 1;
    mma_k8<T>(c, low.w[kLast], high.w[kLast], b.w[kLast]);
  }
}

}  // namespace syncflow::cuda
