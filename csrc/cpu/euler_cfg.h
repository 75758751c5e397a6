// What the sampler's step is given.
#pragma once

#include "capability.h"
#include "rows.h"

namespace syncflow::cpu {

// Rows of `piece` elements, `total` in all; the last may be shorter.
struct EulerCfgArgs {
  int64_t total = 0, piece = 0;
  Rows x, conditional, null, out;
  double guidance = 1, h = 0;
};

SYNCFLOW_DECLARE(void euler_cfg_forward(const EulerCfgArgs& args, bool is_double, int64_t begin,
                                        int64_t end))

}  // namespace syncflow::cpu
