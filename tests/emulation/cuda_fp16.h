#pragma once

#include "cuda_runtime.h"

struct __half {
  static constexpr bool kIsBf16 = false;
  uint16_t bits;
};
struct __half2 {
  uint16_t x, y;
};
inline __half2 __floats2half2_rn(float low, float high) {
  return {emulation::to_fp16(low), emulation::to_fp16(high)};
}
inline float2 __half22float2(__half2 pair) {
  return {emulation::from_fp16(pair.x), emulation::from_fp16(pair.y)};
}
