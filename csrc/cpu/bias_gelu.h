// What the activation's kernels are given.
#pragma once

#include "capability.h"
#include "rows.h"

namespace syncflow::cpu {

// Rows of C elements, `total` elements in all: the last row may be shorter where there is no bias.
struct BiasGeluArgs {
  int64_t total = 0, C = 0, chunk = 0;  // rows per task
  Rows x, bias, out;
  Rows grad_out, grad_x;
  void* partial = nullptr;  // backward with a bias: [tasks, C] sums of grad_x, float or double
};

SYNCFLOW_DECLARE(void bias_gelu_forward(const BiasGeluArgs& args, bool is_double, int64_t begin,
                                        int64_t end))
SYNCFLOW_DECLARE(void bias_gelu_backward(const BiasGeluArgs& args, bool is_double, int64_t begin,
                                         int64_t end))

}  // namespace syncflow::cpu
