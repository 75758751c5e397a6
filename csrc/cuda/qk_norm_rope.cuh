// RMSNorm and rotation of queries and keys on a packed projection [B, T, 3, H, D], forward (in
// place or to another tensor) and backward.
//
// 16-bit numbers, pairs (2i, 2i + 1), D a multiple of 8: a warp takes eight heads of one token as
// one tile, so every byte moves once and in 16-byte vectors. Other rows: one warp each.
#pragma once

#include "temporal_attention_backward.cuh"

namespace syncflow::cuda {

constexpr int kTokenWarps = 8;

// Offsets of a packed tensor's row: which = 0 queries, 1 keys, 2 values.
__device__ __forceinline__ int64_t packed_at(const PackedStrides& s, int64_t b, int64_t t,
                                             int64_t which, int64_t h) {
  return b * s.b + t * s.t + which * s.part + h * s.h;
}

// Item = (token, part, 8 heads); parts beyond `a.parts` (values, in place) are left alone.
struct TileItem {
  int64_t b, t, which, h;
};

__device__ __forceinline__ TileItem tile_item(const QkNormRopeArgs& a, int64_t index, int64_t parts,
                                              int heads_each) {
  const int64_t groups = divide(a.H + heads_each - 1, heads_each);
  const int64_t row = divide(index, groups), token = divide(row, parts), b = divide(token, a.T);
  return {b, token - b * a.T, row - token * parts, (index - row * groups) * heads_each};
}

// Four blocks on a multiprocessor, said aloud: left to itself ptxas wants five on sm_80 and spills.
// budget: 64 registers, 710 instructions
template <class T, int D>
__global__ void __launch_bounds__(kTokenWarps* kWarp, 4)
    qk_norm_rope_kernel(const QkNormRopeArgs a) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kTokenWarps + threadIdx.x / kWarp;
  if (index >= a.B * a.T * a.parts * ((a.H + 7) / 8)) return;
  TileItem item = tile_item(a, index, a.parts, 8);
  item.h += Tile<D>::row();
  const bool here = item.h < a.H;
  Tile<D> tile = {};
  if (here)
    tile.load(static_cast<const T*>(a.qkv) +
              packed_at(a.qkv_strides, item.b, item.t, item.which, item.h));
  if (item.which < 2)
    norm_rope<T>(tile, a.transform, static_cast<int>(item.which), static_cast<int>(item.t),
                 static_cast<int>(a.T));
  if (here)
    tile.store(static_cast<T*>(a.out) +
               packed_at(a.out_strides, item.b, item.t, item.which, item.h));
}

// budget: 64 registers, 920 instructions
template <class T>
__global__ void __launch_bounds__(kTokenWarps* kWarp)
    qk_norm_rope_any_kernel(const QkNormRopeArgs a) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kTokenWarps + threadIdx.x / kWarp;
  if (index >= a.B * a.T * a.parts * a.H) return;
  const TileItem item = tile_item(a, index, a.parts, 1);
  const int D = static_cast<int>(a.D);
  RowPairs pairs;
  pairs.load_row(
      static_cast<const T*>(a.qkv) + packed_at(a.qkv_strides, item.b, item.t, item.which, item.h),
      D, a.transform.interleaved);
  if (item.which < 2)
    pairs.template norm_rope<T>(a.transform, static_cast<int>(item.which), static_cast<int>(item.t),
                                D);
  pairs.store_row(
      static_cast<T*>(a.out) + packed_at(a.out_strides, item.b, item.t, item.which, item.h), D,
      a.transform.interleaved);
}

// A warp keeps to one part (slot modulo 3), so that its sums are one gain's.
// budget: 128 registers, 2340 instructions
template <class T, int D>
__global__ void __launch_bounds__(kTokenWarps* kWarp)
    qk_norm_rope_backward_kernel(const QkNormRopeArgs a) {
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * kTokenWarps + threadIdx.x / kWarp;
  const int which = static_cast<int>(slot % 3);
  float sums[Tile<D>::kRegisters][2] = {};
#pragma unroll 1
  for (int64_t index = slot / 3; index < a.B * a.T * ((a.H + 7) / 8);
       index += a.transform.slots / 3) {
    TileItem item = tile_item(a, index, 1, 8);
    item.h += Tile<D>::row();
    const bool here = item.h < a.H;
    Tile<D> grad = {};
    if (here)
      grad.load(static_cast<const T*>(a.grad_out) +
                packed_at(a.grad_strides, item.b, item.t, which, item.h));
    T* to = static_cast<T*>(a.grad_qkv) + packed_at(a.out_strides, item.b, item.t, which, item.h);
    if (which == 2) {
      if (here) grad.store(to);
      continue;
    }
    float c[Tile<D>::kRegisters][4];
#pragma unroll
    for (int i = 0; i < Tile<D>::kRegisters; ++i) {
      const float2 g = Pair<T>::unpack(grad.w[i]);
      c[i][0] = g.x, c[i][1] = g.y;
    }
    const T* rows =
        static_cast<const T*>(a.qkv) + packed_at(a.qkv_strides, item.b, item.t, which, item.h);
    // Of a head that is not there nothing is read or written: its row is beyond the end.
    store_gradient<T, D>(c, 0, a.transform, which, static_cast<int>(item.t),
                         here ? static_cast<int>(a.T) : 0, rows, to, 0, sums);
  }
#pragma unroll
  for (int out = 0; out < 2; ++out) {
#pragma unroll
    for (int i = 0; i < Tile<D>::kRegisters; ++i) {
      float total[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        total[e] = out == which ? sums[i][e] : 0.f;
#pragma unroll
        for (int step = 4; step < kWarp; step *= 2)
          total[e] += __shfl_xor_sync(kAllLanes, total[e], step);
      }
      if (Tile<D>::row() == 0)
        store(a.transform.partial + (slot * 2 + out) * D + Tile<D>::dim(i), total);
    }
  }
}

// budget: 96 registers, 1350 instructions
template <class T>
__global__ void __launch_bounds__(kTokenWarps* kWarp)
    qk_norm_rope_backward_any_kernel(const QkNormRopeArgs a) {
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * kTokenWarps + threadIdx.x / kWarp;
  const int which = static_cast<int>(slot % 3), D = static_cast<int>(a.D);
  const bool interleaved = a.transform.interleaved;
  RowPairs grad, raw, sums;
  sums.zero();
#pragma unroll 1
  for (int64_t index = slot / 3; index < a.B * a.T * a.H; index += a.transform.slots / 3) {
    const TileItem item = tile_item(a, index, 1, 1);
    grad.load_row(static_cast<const T*>(a.grad_out) +
                      packed_at(a.grad_strides, item.b, item.t, which, item.h),
                  D, interleaved);
    if (which < 2) {
      raw.load_row(
          static_cast<const T*>(a.qkv) + packed_at(a.qkv_strides, item.b, item.t, which, item.h), D,
          interleaved);
      grad.template norm_rope_backward<T>(a.transform, which, static_cast<int>(item.t), D,
                                          raw.rstd(D, interleaved, a.transform.eps), raw, sums);
    }
    grad.store_row(
        static_cast<T*>(a.grad_qkv) + packed_at(a.out_strides, item.b, item.t, which, item.h), D,
        interleaved);
  }
#pragma unroll
  for (int out = 0; out < 2; ++out) {
    RowPairs total = sums;
    if (out != which) total.zero();
    total.store_row(a.transform.partial + (slot * 2 + out) * D, D, interleaved);
  }
}

}  // namespace syncflow::cuda
