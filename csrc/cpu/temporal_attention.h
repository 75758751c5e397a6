// What the kernels on packed projections are given.
#pragma once

#include "capability.h"
#include "packed.h"

namespace syncflow::cpu {

// Softmax attention along T of a packed projection; one item is one (b, s, h). Items are dealt out
// in chunks whose number does not depend on the number of threads, hence neither do the sums of the
// backward pass.
struct TemporalAttentionArgs {
  PackedSizes sizes;
  HeadTransform transform;
  int64_t chunk = 0;     // items per chunk
  Packed qkv;            // strides of B, T, S, 3, H
  Packed out, grad_out;  // [B, T, S, H, D]; the stride of "3" is unused
  Packed grad_qkv;       // backward: out
  void* partial =
      nullptr;  // backward: [chunks, 2, D] sums of the gains' gradients, float or double
};

SYNCFLOW_DECLARE(void temporal_attention_forward(const TemporalAttentionArgs& args, bool is_double,
                                                 int64_t begin, int64_t end))
SYNCFLOW_DECLARE(void temporal_attention_backward(const TemporalAttentionArgs& args, bool is_double,
                                                  int64_t begin, int64_t end))

}  // namespace syncflow::cpu
