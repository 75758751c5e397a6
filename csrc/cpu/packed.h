// A packed projection [B, T, S, 3, H, D] as the files compiled per instruction set see it.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace syncflow::cpu {

struct PackedSizes {
  int64_t B = 0, T = 0, S = 0, H = 0, D = 0;
};

// The last axis is dense, the others lie where their strides (in elements) say.
struct Packed {
  char* data = nullptr;
  int64_t b = 0, t = 0, s = 0, part = 0, h = 0;
  c10::ScalarType dtype = c10::ScalarType::Float;

  int64_t at(int64_t b_, int64_t t_, int64_t s_, int64_t part_, int64_t h_) const {
    return b_ * b + t_ * t + s_ * s + part_ * part + h_ * h;
  }
};

// What happens to a head's row of queries or keys before the scores. Numbers are float, or double
// beside a float64 projection. nullptr: that step is left out.
struct HeadTransform {
  const void* weight[2] = {nullptr, nullptr};  // gains of q and k, [D]
  const void* rotation = nullptr;              // [T, D / 2, 2] of (cos, sin)
  bool interleaved = true;                     // pairs (2i, 2i + 1), else (i, i + D / 2)
  double eps = 0;
};

}  // namespace syncflow::cpu
