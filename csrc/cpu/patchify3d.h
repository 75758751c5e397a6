// What the patch embedding's kernel is given.
#pragma once

#include "capability.h"
#include "packed.h"

namespace syncflow::cpu {

// Tasks are rows of patches: (b, t, row of the grid).
struct Patchify3dArgs {
  int64_t Z = 0, T = 0, H = 0, W = 0;  // the latents; beyond their end they are zero
  int64_t p = 0, q = 0, r = 0;         // the patch
  int64_t grid_t = 0, grid_h = 0, grid_w = 0, C = 0;
  const char* x = nullptr;    // [B, Z, T, H, W], dense
  const char* out = nullptr;  // [B, grid_t, grid_h * grid_w, C], dense
  c10::ScalarType x_dtype = c10::ScalarType::Float, out_dtype = c10::ScalarType::Float;
  const void* weight = nullptr;  // [Z p q r, C padded to `ld`], float or double
  int64_t ld = 0;
  const void* table = nullptr;  // [S, C] or, with table_stride 0, [C]: added
  int64_t table_stride = 0;
};

SYNCFLOW_DECLARE(void patchify3d_forward(const Patchify3dArgs& args, bool is_double, int64_t begin,
                                         int64_t end))

}  // namespace syncflow::cpu
