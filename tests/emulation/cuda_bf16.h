#pragma once

#include "cuda_runtime.h"

struct __nv_bfloat16 {
  static constexpr bool kIsBf16 = true;
  uint16_t bits;
};
struct __nv_bfloat162 {
  uint16_t x, y;
};
inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high) {
  return {emulation::to_bf16(low), emulation::to_bf16(high)};
}
