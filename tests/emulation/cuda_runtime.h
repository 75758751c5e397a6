// CUDA's words for a host compiler: qualifiers, built-in variables, vector types, warp functions.
#pragma once

#include <algorithm>
#include <math.h>

#include "cuda_runtime_api.h"
#include "emulation.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static  // one block runs at a time
#define __launch_bounds__(...)

struct uint3 {
  unsigned x, y, z;
};
struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};
struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};
extern uint3 threadIdx, blockIdx, blockDim, gridDim;

inline float rsqrtf(float v) { return 1.f / std::sqrt(v); }

template <class T>
T emulation_shuffle(unsigned mask, T value, int from, const emulation::Site& site) {
  struct Slot {
    T value;
    int from;
    T result;
  } slot{value, from, value};
  emulation::collective("shuffle", site, mask, &slot, [](void* const slots[32]) {
    for (int lane = 0; lane < 32; ++lane) {
      auto* own = static_cast<Slot*>(slots[lane]);
      own->result = static_cast<Slot*>(slots[own->from & 31])->value;
    }
  });
  return slot.result;
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with,
                  const emulation::Site& site = emulation::Site::current()) {
  return emulation_shuffle(mask, value, static_cast<int>(threadIdx.x % 32) ^ with, site);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int from,
              const emulation::Site& site = emulation::Site::current()) {
  return emulation_shuffle(mask, value, from, site);
}

inline void __syncwarp(unsigned mask = 0xffffffffu,
                       const emulation::Site& site = emulation::Site::current()) {
  emulation::collective("syncwarp", site, mask, nullptr, [](void* const*) {});
}

inline void __syncthreads(const emulation::Site& site = emulation::Site::current()) {
  emulation::barrier(site);
}
