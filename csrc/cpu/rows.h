// What a kernel sees of a tensor: raw rows, so that the files compiled per instruction set need
// none of its headers.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace syncflow::cpu {

// Rows of C elements, `stride` elements apart. data == nullptr: this operand is absent.
struct Rows {
  char* data = nullptr;
  int64_t stride = 0;
  c10::ScalarType dtype = c10::ScalarType::Float;
};

}  // namespace syncflow::cpu
