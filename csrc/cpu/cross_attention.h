// What the kernel of cross-attention is given.
#pragma once

#include "capability.h"
#include "packed.h"

namespace syncflow::cpu {

// K draws, side by side, attend to each of B contexts of M keys and, where there is one, to a key
// of their own. A draw has N queries. Of a `Packed` the strides b (context or draw), t (token) and
// h count.
struct CrossAttentionArgs {
  int64_t B = 0, K = 0, N = 0, M = 0, H = 0, D = 0;
  int64_t chunk = 0;             // forward: queries of a task, which is one (draw, head, chunk)
  HeadTransform transform;       // of the queries: the rotation alone
  const void* term = nullptr;    // [B, M] added to the scores, float or double; nullptr: none
  Packed q, k, v, own_k, own_v;  // own_k.data == nullptr: no key of their own
  Packed out, grad_out;
  Packed grad_q, grad_k, grad_v, grad_own_k, grad_own_v;  // backward: a task is one (context, head)
};

SYNCFLOW_DECLARE(void cross_attention_forward(const CrossAttentionArgs& args, bool is_double,
                                              int64_t begin, int64_t end))
SYNCFLOW_DECLARE(void cross_attention_backward(const CrossAttentionArgs& args, bool is_double,
                                               int64_t begin, int64_t end))

}  // namespace syncflow::cpu
