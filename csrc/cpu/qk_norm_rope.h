// What the stand-alone norm and rotation of queries and keys is given.
#pragma once

#include "capability.h"
#include "packed.h"

namespace syncflow::cpu {

// Tasks are chunks of `chunk` tokens of the flattened [B, N]; N is `sizes.T`, and S is 1.
struct QkNormRopeArgs {
  PackedSizes sizes;
  HeadTransform transform;
  int64_t chunk = 0;
  Packed qkv, out;            // may be one tensor: in place, values are then left alone
  Packed grad_out, grad_qkv;  // backward: in, out
  void* partial = nullptr;    // backward: [chunks, 2, D] sums of the gains' gradients
};

SYNCFLOW_DECLARE(void qk_norm_rope_forward(const QkNormRopeArgs& args, bool is_double,
                                           int64_t begin, int64_t end))
SYNCFLOW_DECLARE(void qk_norm_rope_backward(const QkNormRopeArgs& args, bool is_double,
                                            int64_t begin, int64_t end))

}  // namespace syncflow::cpu
