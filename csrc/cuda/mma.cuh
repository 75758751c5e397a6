// Products of small matrices by one warp (PTX ISA, "Matrix multiply-accumulate"). With lane = 4 g +
// j, a 16-bit fragment holds two neighbouring numbers in each register:
//   A, 16 x 16: (row g, k 2j), (row g + 8, k 2j), (row g, k 2j + 8), (row g + 8, k 2j + 8)
//   B, 16 x 8:  (k 2j, column g), (k 2j + 8, column g)
//   C, 16 x 8:  (row g, columns 2j, 2j + 1), (row g + 8, columns 2j, 2j + 1), in float32
// The k8 form has the first half of A's and B's registers.
#pragma once

#include "common.cuh"

namespace syncflow::cuda {

template <class T>
__device__ __forceinline__ void mma_k16(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                        uint32_t a3, uint32_t b0, uint32_t b1) {
#ifndef __CUDACC__
  ::emulation::mma<T, 16>(c, {a0, a1, a2, a3}, {b0, b1});
#else
  if constexpr (sizeof(T) == 2 && __is_same(T, bf16)) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
#endif
}

template <class T>
__device__ __forceinline__ void mma_k8(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
#ifndef __CUDACC__
  ::emulation::mma<T, 8>(c, {a0, a1}, {b0});
#else
  if constexpr (__is_same(T, bf16)) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(b0));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(b0));
  }
#endif
}

// An 8 x 8 block of 16-bit numbers, lane 4 g + j holding (row g, columns 2j, 2j + 1), transposed.
__device__ __forceinline__ uint32_t transposed(uint32_t block) {
#ifndef __CUDACC__
  return ::emulation::transposed(block);
#else
  uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(block));
  return out;
#endif
}

}  // namespace syncflow::cuda
