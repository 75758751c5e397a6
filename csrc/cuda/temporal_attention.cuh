// Attention along time on a packed projection, forward: one warp per (b, s, h).
//
// T <= 64, 16-bit numbers, D a multiple of 8: norm, rotation, scores, softmax and P v in registers,
// with mma.sync; no shared memory, no barrier, every byte of qkv read once for T <= 32 and every
// byte of the result written once. Anything else (float32, pairs (i, i + D / 2), other D): the same
// in float32 with the keys of a head in shared memory.
#pragma once

#include "fragments.cuh"

namespace syncflow::cuda {

constexpr int kHeadWarps = 4;

// Where an item's rows lie: row t of part p at base + p * H * D + t * stride.
struct Item {
  int64_t qkv, out, qkv_stride, out_stride, part;
};

__device__ __forceinline__ Item item_at(const TemporalAttentionArgs& a, int64_t index) {
  const int64_t place = divide(index, a.H), h = index - place * a.H;
  const int64_t b = divide(place, a.S), s = place - b * a.S, width = a.H * a.D;
  const int64_t first = b * a.T * a.S + s;
  return {first * 3 * width + h * a.D, first * width + h * a.D, a.S * 3 * width, a.S * width,
          width};
}

// Softmax numerators of scores c (rows g and g + 8, keys 8 n + 2j and + 1), and 1 / their sums.
template <int TILES>
__device__ __forceinline__ void softmax(float (&c)[TILES][4], int end, float scale,
                                        float (&inverse)[2]) {
  const float scale_log2 = scale * 1.44269504f;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float most = -INFINITY, sum = 0.f;
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int e = 2 * half; e < 2 * half + 2; ++e) {
        if (8 * n + 2 * static_cast<int>(threadIdx.x % 4) + (e & 1) >= end) c[n][e] = -INFINITY;
        most = fmaxf(most, c[n][e]);
      }
    most = row_max(most);
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int e = 2 * half; e < 2 * half + 2; ++e) {
        c[n][e] = exp2f((c[n][e] - most) * scale_log2);
        sum += c[n][e];
      }
    inverse[half] = 1.f / row_sum(sum);
  }
}

// TILES key tiles of 8 rows; KEPT: keys and values stay in registers, else each 16 queries read
// them again (through the cache). Loads are long waits: as many warps as registers allow hide them.
// budget: 255 registers, 3730 instructions
template <class T, int D, int TILES, bool KEPT>
__global__ void __launch_bounds__(kHeadWarps* kWarp, (TILES == 1 && D <= 72 ? 5 : 1))
    temporal_attention_kernel(const TemporalAttentionArgs a) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / kWarp;
  if (index >= a.B * a.S * a.H) return;
  const Item item = item_at(a, index);
  const T* q_rows = static_cast<const T*>(a.qkv) + item.qkv;
  const T* k_rows = q_rows + item.part;
  const T* v_rows = k_rows + item.part;
  const int end = static_cast<int>(a.T), row = Tile<D>::row();

  Tile<D> k[KEPT ? TILES : 1], v[KEPT ? TILES : 1], low, high = {};
  // Up to 16 rows are one pass: their queries are asked for with the rest, not after it.
  constexpr bool kOnce = KEPT && (TILES == 1 || (TILES == 2 && D <= 96));
  if constexpr (kOnce) {
    low.load_or_zero(q_rows, item.qkv_stride, row, end);
    if constexpr (TILES > 1) high.load_or_zero(q_rows, item.qkv_stride, 8 + row, end);
  }
  if constexpr (KEPT) {
#pragma unroll
    for (int n = 0; n < TILES; ++n) {
      k[n].load_or_zero(k_rows, item.qkv_stride, 8 * n + row, end);
      v[n].load_or_zero(v_rows, item.qkv_stride, 8 * n + row, end);
    }
#pragma unroll
    for (int n = 0; n < TILES; ++n) {
      norm_rope<T>(k[n], a.transform, 1, 8 * n + row, end);
#pragma unroll
      for (int i = 0; i < Tile<D>::kRegisters; ++i) v[n].w[i] = transposed(v[n].w[i]);
    }
  }

#pragma unroll 1
  for (int t = 0; t < (kOnce ? 1 : end); t += 16) {
    if constexpr (!kOnce) {
      low.load_or_zero(q_rows, item.qkv_stride, t + row, end);
      high.load_or_zero(q_rows, item.qkv_stride, t + 8 + row, end);
    }
    norm_rope<T>(low, a.transform, 0, t + row, end);
    if constexpr (TILES > 1) norm_rope<T>(high, a.transform, 0, t + 8 + row, end);

    float scores[TILES][4] = {}, inverse[2];
#pragma unroll
    for (int n = 0; n < TILES; ++n) {
      if constexpr (!KEPT) {
        k[0].load_or_zero(k_rows, item.qkv_stride, 8 * n + row, end);
        norm_rope<T>(k[0], a.transform, 1, 8 * n + row, end);
      }
      multiply_rows<T>(scores[n], low, high, k[KEPT ? n : 0]);
    }
    softmax<TILES>(scores, end, a.scale, inverse);

    float out[Tile<D>::kRegisters][4] = {};
#pragma unroll
    for (int n = 0; n < TILES; n += 2) {
      const uint32_t p0 = Pair<T>::pack(scores[n][0], scores[n][1]);
      const uint32_t p1 = Pair<T>::pack(scores[n][2], scores[n][3]);
      if constexpr (TILES == 1) {
#pragma unroll
        for (int i = 0; i < Tile<D>::kRegisters; ++i) mma_k8<T>(out[i], p0, p1, v[0].w[i]);
      } else {
        const uint32_t p2 = Pair<T>::pack(scores[n + 1][0], scores[n + 1][1]);
        const uint32_t p3 = Pair<T>::pack(scores[n + 1][2], scores[n + 1][3]);
        if constexpr (KEPT) {
#pragma unroll
          for (int i = 0; i < Tile<D>::kRegisters; ++i)
            mma_k16<T>(out[i], p0, p1, p2, p3, v[n].w[i], v[n + 1].w[i]);
        } else {
          // Else all tiles' loads are moved ahead of all products, and 8 tiles of D = 96 spill.
          __syncwarp();
          Tile<D> first, second;
          first.load_or_zero(v_rows, item.qkv_stride, 8 * n + row, end);
          second.load_or_zero(v_rows, item.qkv_stride, 8 * n + 8 + row, end);
#pragma unroll
          for (int i = 0; i < Tile<D>::kRegisters; ++i)
            mma_k16<T>(out[i], p0, p1, p2, p3, transposed(first.w[i]), transposed(second.w[i]));
        }
      }
    }
    T* out_rows = static_cast<T*>(a.out) + item.out;
#pragma unroll
    for (int half = 0; half < (TILES > 1 ? 2 : 1); ++half) {
      Tile<D> tile;
#pragma unroll
      for (int i = 0; i < Tile<D>::kRegisters; ++i)
        tile.w[i] =
            Pair<T>::pack(out[i][2 * half] * inverse[half], out[i][2 * half + 1] * inverse[half]);
      const int to = t + 8 * half + row;
      if (to < end) tile.store(out_rows + to * item.out_stride);
    }
  }
}

// Any head: float32 arithmetic, rows in shared memory. A row's pairs are dealt out to the lanes.

constexpr int kMostPairs = 4;  // of a lane: D <= 256
constexpr int kMostHead = 2 * kMostPairs * kWarp;

// Places in the row of the two numbers of pair i.
struct PairPlace {
  int first, second;
};

__device__ __forceinline__ PairPlace pair_place(int pair, int D, bool interleaved) {
  return interleaved ? PairPlace{2 * pair, 2 * pair + 1} : PairPlace{pair, pair + D / 2};
}

// The pairs of a row, lane l holding pairs l, l + 32, ...; an odd last number is a pair's first.
struct RowPairs {
  float x[kMostPairs][2];

  template <class T>
  __device__ __forceinline__ void load_row(const T* row, int D, bool interleaved) {
    each(D, interleaved, [&](int i, PairPlace at, bool both) {
      x[i][0] = load_one(row + at.first);
      x[i][1] = both ? load_one(row + at.second) : 0.f;
    });
  }

  template <class T>
  __device__ __forceinline__ void store_row(T* row, int D, bool interleaved) const {
    each(D, interleaved, [&](int i, PairPlace at, bool both) {
      store_one(row + at.first, x[i][0]);
      if (both) store_one(row + at.second, x[i][1]);
    });
  }

  __device__ __forceinline__ void to_shared(float* row, int D, bool interleaved) const {
    each(D, interleaved, [&](int i, PairPlace at, bool both) {
      row[at.first] = x[i][0];
      if (both) row[at.second] = x[i][1];
    });
  }

  // f(register, place, whether the pair has a second number)
  template <class F>
  static __device__ __forceinline__ void each(int D, bool interleaved, F&& f) {
#pragma unroll
    for (int i = 0; i < kMostPairs; ++i) {
      const int pair = static_cast<int>(threadIdx.x % kWarp) + kWarp * i;
      const PairPlace at = pair_place(pair, D, interleaved || D % 2);
      if (2 * pair < D) f(i, at, at.second < D);
    }
  }

  __device__ __forceinline__ void zero() {
#pragma unroll
    for (int i = 0; i < kMostPairs; ++i) x[i][0] = x[i][1] = 0.f;
  }

  // 1 / rms of the row.
  __device__ __forceinline__ float rstd(int D, bool interleaved, float eps) const {
    float squares = 0.f;
    each(D, interleaved,
         [&](int i, PairPlace, bool) { squares += x[i][0] * x[i][0] + x[i][1] * x[i][1]; });
    return rsqrtf(warp_sum(squares) / D + eps);
  }

  // RMSNorm and rotation of row t.
  template <class T>
  __device__ __forceinline__ void norm_rope(const HeadTransform& transform, int which, int t,
                                            int D) {
    const SmallRows gain = transform.gain(which);
    const float rstd = gain.data ? this->rstd(D, transform.interleaved, transform.eps) : 1.f;
    each(D, transform.interleaved, [&](int i, PairPlace at, bool both) {
      if (gain.data) {
        float w[1];
        load_either<T>(gain.data, gain.is_float, at.first, w);
        x[i][0] *= rstd * w[0];
        if (both) {
          load_either<T>(gain.data, gain.is_float, at.second, w);
          x[i][1] *= rstd * w[0];
        }
      }
      if (transform.rotation) turn(transform.rotation, t, D, i, 1.f);
    });
  }

  // Gradient of norm_rope: x holds the gradient of its result, `raw` the row that it was given;
  // adds to `sums` what the gain's gradient has of this row.
  template <class T>
  __device__ __forceinline__ void norm_rope_backward(const HeadTransform& transform, int which,
                                                     int t, int D, float rstd, const RowPairs& raw,
                                                     RowPairs& sums) {
    const SmallRows gain = transform.gain(which);
    float dot = 0.f;
    each(D, transform.interleaved, [&](int i, PairPlace at, bool both) {
      if (transform.rotation) turn(transform.rotation, t, D, i, -1.f);
      if (!gain.data) return;
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        if (e && !both) continue;
        float w[1];
        load_either<T>(gain.data, gain.is_float, e ? at.second : at.first, w);
        const float n = raw.x[i][e] * rstd;
        sums.x[i][e] += x[i][e] * n;
        x[i][e] *= w[0];
        dot += x[i][e] * n;
      }
    });
    if (!gain.data) return;
    const float mean = warp_sum(dot) / D;
    each(D, transform.interleaved, [&](int i, PairPlace, bool both) {
      x[i][0] = rstd * (x[i][0] - raw.x[i][0] * rstd * mean);
      if (both) x[i][1] = rstd * (x[i][1] - raw.x[i][1] * rstd * mean);
    });
  }

  __device__ __forceinline__ void turn(const float* rotation, int t, int D, int i, float sign) {
    const int pair = static_cast<int>(threadIdx.x % kWarp) + kWarp * i;
    float angle[2];
    load(rotation + static_cast<int64_t>(t) * D + 2 * pair, angle);
    const float c = angle[0], s = sign * angle[1], first = x[i][0];
    x[i][0] = first * c - x[i][1] * s;
    x[i][1] = x[i][1] * c + first * s;
  }
};

// Numbers of shared memory per warp: keys, one query row, one row of probabilities.
__host__ __device__ inline int64_t forward_shared(int64_t T, int64_t D) {
  return T * (D | 1) + (D | 1) + T;
}

// budget: 128 registers, 1880 instructions
template <class T>
__global__ void __launch_bounds__(4 * kWarp)
    temporal_attention_any_kernel(const TemporalAttentionArgs a) {
  SYNCFLOW_DYNAMIC_SHARED(float, shared);
  const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * warps + warp;
  if (index >= a.B * a.S * a.H) return;
  const Item item = item_at(a, index);
  const int end = static_cast<int>(a.T), D = static_cast<int>(a.D), pitch = D | 1;
  const bool interleaved = a.transform.interleaved;
  float* keys = shared + warp * forward_shared(a.T, a.D);
  float *query = keys + end * pitch, *weights = query + pitch;
  const T* q_rows = static_cast<const T*>(a.qkv) + item.qkv;
  const T* k_rows = q_rows + item.part;
  const T* v_rows = k_rows + item.part;
  RowPairs pairs;

  for (int u = 0; u < end; ++u) {
    pairs.load_row(k_rows + u * item.qkv_stride, D, interleaved);
    pairs.template norm_rope<T>(a.transform, 1, u, D);
    pairs.to_shared(keys + u * pitch, D, interleaved);
  }
  for (int t = 0; t < end; ++t) {
    pairs.load_row(q_rows + t * item.qkv_stride, D, interleaved);
    pairs.template norm_rope<T>(a.transform, 0, t, D);
    __syncwarp();
    pairs.to_shared(query, D, interleaved);
    __syncwarp();
    float most = -INFINITY, sum = 0.f;
    for (int u = lane; u < end; u += kWarp) {
      float score = 0.f;
      for (int d = 0; d < D; ++d) score += query[d] * keys[u * pitch + d];
      weights[u] = score * a.scale;
      most = fmaxf(most, weights[u]);
    }
    most = warp_max(most);
    for (int u = lane; u < end; u += kWarp) {
      weights[u] = expf(weights[u] - most);
      sum += weights[u];
    }
    const float inverse = 1.f / warp_sum(sum);
    __syncwarp();
    for (int d = lane; d < D; d += kWarp) {
      float out = 0.f;
      for (int u = 0; u < end; ++u) out += weights[u] * load_one(v_rows + u * item.qkv_stride + d);
      store_one(static_cast<T*>(a.out) + item.out + t * item.out_stride + d, out * inverse);
    }
  }
}

}  // namespace syncflow::cuda
