// What the adaLN kernels are given: raw rows, so that the files compiled per instruction set need
// no tensor.
#pragma once

#include "capability.h"
#include "rows.h"

namespace syncflow::cpu {

// One pass over [G, S, C]. Tasks are (group, chunk of at most `chunk` tokens); their number does
// not depend on the number of threads, hence neither do the sums of the backward pass.
struct AdalnArgs {
  int64_t tokens = 0, channels = 0, chunk = 0, chunks_per_group = 0;
  double eps = 0;
  // out = x + LN(y) * scale + shift, in place of LN(x + gate * y) * (1 + scale) + shift
  bool post_norm = false;
  bool past_caches = false;  // forward: more is written than the caches keep for who reads it next
  Rows x, y, out, sum;       // per token
  Rows gate, shift, scale;   // per group
  Rows grad_out, grad_sum;   // backward, per token: in
  Rows grad_x, grad_y;       // backward, per token: out
  void* partial =
      nullptr;  // backward: [tasks, 3, C] sums of (gate, shift, scale) gradients, float or double
};

SYNCFLOW_DECLARE(void adaln_forward(const AdalnArgs& args, bool is_double, int64_t begin,
                                    int64_t end))
SYNCFLOW_DECLARE(void adaln_backward(const AdalnArgs& args, bool is_double, int64_t begin,
                                     int64_t end))

}  // namespace syncflow::cpu
