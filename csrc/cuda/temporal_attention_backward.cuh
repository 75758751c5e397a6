// Attention along time, backward: one warp per (b, s, h) at a time, from qkv and the result's
// gradient alone; norm, rotation and softmax are computed again. With q^, k^ normed and rotated,
// P the probabilities and dO the gradient:
//
//   dP = dO v^T,  dS = scale P (dP - rowsum(P dP)),  dv = P^T dO,  dq^ = dS k^,  dk^ = dS^T q^
//
// then rotation and norm backwards. A warp walks over items a grid apart, so that the sums for the
// gains' gradients stay in its registers; reduce_gains_kernel adds the warps' in a fixed order.
#pragma once

#include "reduce_gains.cuh"
#include "temporal_attention.cuh"

namespace syncflow::cuda {

enum Part { kQuery, kKey, kValue, kGrad, kParts };

// Where a warp keeps its tiles and the 8 x 8 blocks of P and dS: in registers for one or two tiles,
// beyond in shared memory, each lane at its own words, so that nothing needs a barrier.
template <int D, int TILES, bool SHARED>
struct Keep {
  static constexpr int kWords =
      (kParts * TILES * Tile<D>::kRegisters + 2 * TILES * TILES);  // of each lane
  uint32_t tiles[kParts][TILES][Tile<D>::kRegisters], blocks[2][TILES][TILES];
  __device__ __forceinline__ explicit Keep(uint32_t*) {}
  __device__ __forceinline__ uint32_t& tile(int part, int n, int i) { return tiles[part][n][i]; }
  __device__ __forceinline__ uint32_t& block(int which, int row, int column) {
    return blocks[which][row][column];
  }
};

template <int D, int TILES>
struct Keep<D, TILES, true> {
  static constexpr int kWords = Keep<D, TILES, false>::kWords;
  uint32_t* words;
  __device__ __forceinline__ explicit Keep(uint32_t* shared)
      : words(shared + threadIdx.x / kWarp * kWords * kWarp + threadIdx.x % kWarp) {}
  __device__ __forceinline__ uint32_t& tile(int part, int n, int i) {
    return words[((part * TILES + n) * Tile<D>::kRegisters + i) * kWarp];
  }
  __device__ __forceinline__ uint32_t& block(int which, int row, int column) {
    return words[(kParts * TILES * Tile<D>::kRegisters + (which * TILES + row) * TILES + column) *
                 kWarp];
  }
};

// Rows g (half 0) or g + 8 (half 1) of a gradient with respect to q^ or k^, taken back through
// rotation and norm and stored; adds to `sums` what the gain's gradient has of these rows.
template <class T, int D>
__device__ __forceinline__ void store_gradient(float (&c)[Tile<D>::kRegisters][4], int half,
                                               const HeadTransform& transform, int which, int t,
                                               int end, const T* rows, T* grad_rows, int64_t stride,
                                               float (&sums)[Tile<D>::kRegisters][2]) {
  const SmallRows gain = transform.gain(which);
  Tile<D> raw;
  float rstd = 1.f, dot = 0.f;
  if (gain.data) {
    raw.load_or_zero(rows, stride, t, end);
    rstd = inverse_rms<T>(raw, transform.eps);
  }
  each_vector<D>([&](int first, auto count) {
    constexpr int kCount = decltype(count)::value;
    float w[2 * kCount], angle[2 * kCount];
    const bool rotate = transform.rotation && t < end;
    if (rotate) load_rotation<D, kCount>(transform.rotation, t, first, angle);
    if (gain.data) load_gain<T, D, kCount>(gain, first, w);
#pragma unroll
    for (int p = 0; p < kCount; ++p) {
      float& x = c[first + p][2 * half];
      float& y = c[first + p][2 * half + 1];
      if (rotate) {
        const float cosine = angle[2 * p], sine = angle[2 * p + 1], before = x;
        x = before * cosine + y * sine;
        y = y * cosine - before * sine;
      }
      if (gain.data) {
        const float2 n = Pair<T>::unpack(raw.w[first + p]);
        sums[first + p][0] += x * n.x * rstd;
        sums[first + p][1] += y * n.y * rstd;
        x *= w[2 * p];
        y *= w[2 * p + 1];
        dot += (x * n.x + y * n.y) * rstd;
      }
    }
  });
  const float mean = gain.data ? row_sum(dot) * (1.f / D) : 0.f;
#pragma unroll
  for (int i = 0; i < Tile<D>::kRegisters; ++i) {
    float2 dx = {c[i][2 * half], c[i][2 * half + 1]};
    if (gain.data) {
      const float2 x = Pair<T>::unpack(raw.w[i]);
      dx = {rstd * (dx.x - x.x * rstd * mean), rstd * (dx.y - x.y * rstd * mean)};
    }
    raw.w[i] = Pair<T>::pack(dx.x, dx.y);
  }
  if (t < end) raw.store(grad_rows + t * stride);
}

// budget: 255 registers, 5310 instructions
template <class T, int D, int TILES, bool SHARED>
__global__ void __launch_bounds__(4 * kWarp, (TILES == 1 && D <= 72 ? 3 : 1))
    temporal_attention_backward_kernel(const TemporalAttentionArgs a) {
  constexpr int kRegisters = Tile<D>::kRegisters, kSpan = TILES > 1 ? 2 : 1;
  constexpr int kUnrolled = SHARED ? 1 : TILES;
  SYNCFLOW_DYNAMIC_SHARED(uint32_t, shared);
  const int end = static_cast<int>(a.T), row = Tile<D>::row(), warps = blockDim.x / kWarp;
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / kWarp;
  float sums[2][kRegisters][2] = {};

#pragma unroll 1
  for (int64_t index = slot; index < a.B * a.S * a.H; index += a.transform.slots) {
    const Item item = item_at(a, index);
    const T* rows = static_cast<const T*>(a.qkv) + item.qkv;
    T* grad_rows = static_cast<T*>(a.grad_qkv) + item.qkv;
    Keep<D, TILES, SHARED> keep(shared);

#pragma unroll kUnrolled
    for (int n = 0; n < TILES; ++n) {
      Tile<D> tile;
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        if (part == kGrad)
          tile.load_or_zero(static_cast<const T*>(a.grad_out) + item.out, item.out_stride,
                            8 * n + row, end);
        else
          tile.load_or_zero(rows + part * item.part, item.qkv_stride, 8 * n + row, end);
        if (part == kQuery || part == kKey)
          norm_rope<T>(tile, a.transform, part == kKey, 8 * n + row, end);
#pragma unroll
        for (int i = 0; i < kRegisters; ++i) keep.tile(part, n, i) = tile.w[i];
      }
    }

    // P and dS, 16 queries at a time.
#pragma unroll kUnrolled
    for (int m = 0; m < TILES; m += 2) {
      float p[TILES][4] = {}, dp[TILES][4] = {}, inverse[2];
      Tile<D> low, high = {}, other;
#pragma unroll
      for (int pass = 0; pass < 2; ++pass) {
#pragma unroll
        for (int i = 0; i < kRegisters; ++i) {
          low.w[i] = keep.tile(pass ? kGrad : kQuery, m, i);
          if constexpr (TILES > 1) high.w[i] = keep.tile(pass ? kGrad : kQuery, m + 1, i);
        }
#pragma unroll
        for (int n = 0; n < TILES; ++n) {
#pragma unroll
          for (int i = 0; i < kRegisters; ++i) other.w[i] = keep.tile(pass ? kValue : kKey, n, i);
          multiply_rows<T>(pass ? dp[n] : p[n], low, high, other);
        }
      }
      softmax<TILES>(p, end, a.scale, inverse);
#pragma unroll
      for (int half = 0; half < kSpan; ++half) {
        float delta = 0.f;
#pragma unroll
        for (int n = 0; n < TILES; ++n)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            p[n][e] *= inverse[half];
            delta += p[n][e] * dp[n][e];
          }
        delta = row_sum(delta);
#pragma unroll
        for (int n = 0; n < TILES; ++n) {
          const int e = 2 * half;
          keep.block(0, m + half, n) = Pair<T>::pack(p[n][e], p[n][e + 1]);
          const float first = p[n][e] * (dp[n][e] - delta) * a.scale;
          const float second = p[n][e + 1] * (dp[n][e + 1] - delta) * a.scale;
          keep.block(1, m + half, n) = Pair<T>::pack(first, second);
        }
      }
    }

    // dv = P^T dO, dq^ = dS k^, dk^ = dS^T q^: 16 rows of the result at a time.
#pragma unroll
    for (int part = 0; part < 3; ++part) {
      const int which = part == kValue ? 0 : 1;
      const int from = part == kQuery ? kKey : part == kKey ? kQuery : kGrad;
#pragma unroll kUnrolled
      for (int m = 0; m < TILES; m += 2) {
        float c[kRegisters][4] = {};
#pragma unroll kUnrolled
        for (int n = 0; n < TILES; n += 2) {
          uint32_t block[kSpan][kSpan];  // of the left operand: [row tile][column tile]
#pragma unroll
          for (int r = 0; r < kSpan; ++r)
#pragma unroll
            for (int s = 0; s < kSpan; ++s)
              block[r][s] = part == kQuery ? keep.block(which, m + r, n + s)
                                           : transposed(keep.block(which, n + s, m + r));
#pragma unroll
          for (int i = 0; i < kRegisters; ++i) {
            const uint32_t first = transposed(keep.tile(from, n, i));
            if constexpr (TILES == 1)
              mma_k8<T>(c[i], block[0][0], 0u, first);
            else
              mma_k16<T>(c[i], block[0][0], block[kSpan - 1][0], block[0][kSpan - 1],
                         block[kSpan - 1][kSpan - 1], first, transposed(keep.tile(from, n + 1, i)));
          }
        }
#pragma unroll
        for (int half = 0; half < kSpan; ++half) {
          const int t = 8 * (m + half) + row;
          T* to = grad_rows + part * item.part;
          if (part == kValue) {
            Tile<D> tile;
#pragma unroll
            for (int i = 0; i < kRegisters; ++i)
              tile.w[i] = Pair<T>::pack(c[i][2 * half], c[i][2 * half + 1]);
            if (t < end) tile.store(to + t * item.qkv_stride);
          } else {
            store_gradient<T, D>(c, half, a.transform, part, t, end, rows + part * item.part, to,
                                 item.qkv_stride, sums[part == kKey]);
          }
        }
      }
    }
  }

  // The eight rows of a tile sit in lanes with equal j.
#pragma unroll
  for (int which = 0; which < 2; ++which) {
    if (!a.transform.weight[which].data) continue;
    float* out = a.transform.partial + (slot * 2 + which) * D;
#pragma unroll
    for (int i = 0; i < kRegisters; ++i) {
      float total[2] = {sums[which][i][0], sums[which][i][1]};
#pragma unroll
      for (int step = 4; step < kWarp; step *= 2)
#pragma unroll
        for (int e = 0; e < 2; ++e) total[e] += __shfl_xor_sync(kAllLanes, total[e], step);
      if (row == 0) store(out + Tile<D>::dim(i), total);
    }
  }
}

// Any head, float32: numbers of shared memory per warp.
__host__ __device__ inline int64_t backward_shared(int64_t T, int64_t D) {
  return kParts * T * (D | 1) + 2 * T * (T | 1);
}

// budget: 128 registers, 4230 instructions
template <class T>
__global__ void __launch_bounds__(4 * kWarp)
    temporal_attention_backward_any_kernel(const TemporalAttentionArgs a) {
  SYNCFLOW_DYNAMIC_SHARED(float, shared);
  const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * warps + warp;
  const int end = static_cast<int>(a.T), D = static_cast<int>(a.D), pitch = D | 1, across = end | 1;
  const bool interleaved = a.transform.interleaved;
  float* tile[kParts];
  for (int part = 0; part < kParts; ++part)
    tile[part] = shared + warp * backward_shared(a.T, a.D) + part * end * pitch;
  float *p = tile[kGrad] + end * pitch, *ds = p + end * across;
  RowPairs pairs, raw, sums[2];
  sums[0].zero(), sums[1].zero();

#pragma unroll 1
  for (int64_t index = slot; index < a.B * a.S * a.H; index += a.transform.slots) {
    const Item item = item_at(a, index);
    const T* rows = static_cast<const T*>(a.qkv) + item.qkv;
    T* grad_rows = static_cast<T*>(a.grad_qkv) + item.qkv;
    __syncwarp();
    for (int t = 0; t < end; ++t) {
#pragma unroll
      for (int part = 0; part < 3; ++part) {
        pairs.load_row(rows + part * item.part + t * item.qkv_stride, D, interleaved);
        if (part != kValue) pairs.template norm_rope<T>(a.transform, part, t, D);
        pairs.to_shared(tile[part] + t * pitch, D, interleaved);
      }
      const T* grad = static_cast<const T*>(a.grad_out) + item.out + t * item.out_stride;
      pairs.load_row(grad, D, interleaved);
      pairs.to_shared(tile[kGrad] + t * pitch, D, interleaved);
    }
    __syncwarp();

    for (int t = 0; t < end; ++t) {
      float most = -INFINITY, sum = 0.f, delta = 0.f;
      for (int u = lane; u < end; u += kWarp) {
        float score = 0.f, dp = 0.f;
        for (int d = 0; d < D; ++d) {
          score += tile[kQuery][t * pitch + d] * tile[kKey][u * pitch + d];
          dp += tile[kGrad][t * pitch + d] * tile[kValue][u * pitch + d];
        }
        p[t * across + u] = score * a.scale;
        ds[t * across + u] = dp;
        most = fmaxf(most, score * a.scale);
      }
      most = warp_max(most);
      for (int u = lane; u < end; u += kWarp) {
        p[t * across + u] = expf(p[t * across + u] - most);
        sum += p[t * across + u];
      }
      const float inverse = 1.f / warp_sum(sum);
      for (int u = lane; u < end; u += kWarp) {
        p[t * across + u] *= inverse;
        delta += p[t * across + u] * ds[t * across + u];
      }
      delta = warp_sum(delta);
      for (int u = lane; u < end; u += kWarp)
        ds[t * across + u] = p[t * across + u] * (ds[t * across + u] - delta) * a.scale;
    }
    __syncwarp();

#pragma unroll 1
    for (int t = 0; t < end; ++t) {
#pragma unroll
      for (int part = 0; part < 3; ++part) {
        const float* from = part == kQuery ? tile[kKey] : part == kKey ? tile[kQuery] : tile[kGrad];
        const float* weights = part == kValue ? p : ds;
        const int first = part == kQuery ? t * across : t, step = part == kQuery ? 1 : across;
        pairs.zero();
        for (int u = 0; u < end; ++u) {
          const float weight = weights[first + u * step];
          RowPairs::each(D, interleaved, [&](int i, PairPlace at, bool both) {
            pairs.x[i][0] += weight * from[u * pitch + at.first];
            if (both) pairs.x[i][1] += weight * from[u * pitch + at.second];
          });
        }
        if (part != kValue) {
          raw.load_row(rows + part * item.part + t * item.qkv_stride, D, interleaved);
          const float rstd = raw.rstd(D, interleaved, a.transform.eps);
          pairs.template norm_rope_backward<T>(a.transform, part, t, D, rstd, raw, sums[part]);
        }
        pairs.store_row(grad_rows + part * item.part + t * item.qkv_stride, D, interleaved);
      }
    }
  }
#pragma unroll
  for (int which = 0; which < 2; ++which)
    if (a.transform.weight[which].data)
      sums[which].store_row(a.transform.partial + (slot * 2 + which) * D, D, interleaved);
}

}  // namespace syncflow::cuda
