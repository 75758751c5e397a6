// Attention along time, and the norm and rotation of queries and keys alone, on packed projections:
// checks, allocation and the split into tasks; the arithmetic is in simd/.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "../checks.h"
#include "../ops.h"
#include "qk_norm_rope.h"
#include "temporal_attention.h"

namespace syncflow::cpu {
namespace {

// Heads of one place, or tokens, per chunk: the chunks' sums of gradients stay few, and every core
// has work.
constexpr int64_t kHeads = 32;
constexpr int64_t kTokens = 16;
// Elements below which a second thread costs more than it saves.
constexpr int64_t kGrain = 16384;

// The last axis must be dense; the others may lie anywhere.
Tensor dense_heads(const Tensor& t) {
  return t.stride(-1) == 1 || t.size(-1) == 1 ? t : t.contiguous();
}

// A [B, T, S, 3, H, D] or [B, N, 3, H, D] tensor.
Packed packed(const Tensor& t) {
  const bool places = t.dim() == 6;
  return {static_cast<char*>(t.data_ptr()),
          t.stride(0),
          t.stride(1),
          places ? t.stride(2) : 0,
          t.stride(-3),
          t.stride(-2),
          t.scalar_type()};
}

// A [B, T, S, H * D] tensor whose last axis is dense.
Packed per_head(const Tensor& t, int64_t D) {
  return {static_cast<char*>(t.data_ptr()),
          t.stride(0),
          t.stride(1),
          t.stride(2),
          0,
          D,
          t.scalar_type()};
}

// The transform and the tensors that it points into.
struct Transform {
  HeadTransform raw;
  Tensor weight[2], rotation;

  Transform(const Tensor& qkv, const OptionalTensor& q_weight_D, const OptionalTensor& k_weight_D,
            const OptionalTensor& rotation_NP2, bool interleaved, double eps) {
    const auto dtype = qkv.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const OptionalTensor* given[2] = {&q_weight_D, &k_weight_D};
    for (int i = 0; i < 2; ++i) {
      if (!*given[i]) continue;
      weight[i] = (*given[i])->to(dtype).contiguous();
      raw.weight[i] = weight[i].data_ptr();
    }
    if (rotation_NP2) {
      rotation = rotation_NP2->to(dtype).contiguous();
      raw.rotation = rotation.data_ptr();
    }
    raw.interleaved = interleaved;
    raw.eps = eps;
  }

  // The sums over chunks as the gradient of gain `which`; an empty tensor where there is none.
  Tensor gradient(const Tensor& partial_K2D, int which, const OptionalTensor& like) const {
    if (!like) return at::empty({0}, partial_K2D.options());
    return partial_K2D.select(1, which).sum(0).to(like->scalar_type());
  }
};

int64_t chunks(int64_t items, int64_t chunk) { return (items + chunk - 1) / chunk; }

// Every task of a pass, `per_task` elements each.
template <class Pass, class Function>
void run_tasks(const Pass& pass, int64_t per_task, Function function) {
  at::parallel_for(
      0, pass.tasks, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, per_task)),
      [&](int64_t begin, int64_t end) { function(pass.args, pass.is_double, begin, end); });
}

struct TemporalPass {
  TemporalAttentionArgs args;
  int64_t tasks;
  bool is_double;

  TemporalPass(const Tensor& qkv, const Transform& transform)
      : is_double(qkv.scalar_type() == at::kDouble) {
    args.sizes = {qkv.size(0), qkv.size(1), qkv.size(2), qkv.size(4), qkv.size(5)};
    args.transform = transform.raw;
    args.qkv = packed(qkv);
    const int64_t items = args.sizes.T ? args.sizes.B * args.sizes.S * args.sizes.H : 0;
    // Long sequences make heavy items: fewer of them to a chunk.
    args.chunk = std::max<int64_t>(1, kHeads * 8 / std::max<int64_t>(args.sizes.T, 8));
    tasks = chunks(items, args.chunk);
  }

  // Eight frames fill an AVX2 vector and half of an AVX-512 one; 16 were faster there too on Zen 4.
  bool is_narrow() const { return args.sizes.T <= 16; }

  template <class Function>
  void run(Function function) const {
    run_tasks(*this, args.chunk * args.sizes.T * args.sizes.D * 3, function);
  }
};

struct NormRopePass {
  QkNormRopeArgs args;
  int64_t tasks;
  bool is_double;

  NormRopePass(const Tensor& qkv, const Transform& transform)
      : is_double(qkv.scalar_type() == at::kDouble) {
    args.sizes = {qkv.size(0), qkv.size(1), 1, qkv.size(3), qkv.size(4)};
    args.transform = transform.raw;
    args.chunk = kTokens;
    args.qkv = packed(qkv);
    tasks = chunks(args.sizes.B * args.sizes.T, kTokens);
  }

  template <class Function>
  void run(Function function) const {
    run_tasks(*this, kTokens * args.sizes.H * args.sizes.D * 3, function);
  }
};

Tensor partial_sums(int64_t tasks, int64_t D, bool is_double) {
  return at::zeros({tasks, 2, D}, is_double ? at::kDouble : at::kFloat);
}

}  // namespace

Tensor temporal_attention(const Tensor& qkv_BTS3HD, const OptionalTensor& q_weight_D,
                          const OptionalTensor& k_weight_D, const OptionalTensor& rotation_TP2,
                          bool interleaved, double eps) {
  check_packed("qkv", qkv_BTS3HD, 6);
  check_head_transform(qkv_BTS3HD, q_weight_D, k_weight_D, rotation_TP2);
  const Tensor qkv = dense_heads(qkv_BTS3HD);
  const Transform transform(qkv, q_weight_D, k_weight_D, rotation_TP2, interleaved, eps);
  const int64_t H = qkv.size(4), D = qkv.size(5);
  Tensor out = at::empty({qkv.size(0), qkv.size(1), qkv.size(2), H * D}, qkv.options());
  TemporalPass pass(qkv, transform);
  pass.args.out = per_head(out, D);
  pass.run(pass.is_narrow() ? SYNCFLOW_PICK_NARROW(temporal_attention_forward)
                            : SYNCFLOW_PICK(temporal_attention_forward));
  return out;
}

std::tuple<Tensor, Tensor, Tensor> temporal_attention_backward(const Tensor& grad_BTSC,
                                                               const Tensor& qkv_BTS3HD,
                                                               const OptionalTensor& q_weight_D,
                                                               const OptionalTensor& k_weight_D,
                                                               const OptionalTensor& rotation_TP2,
                                                               bool interleaved, double eps) {
  check_packed("qkv", qkv_BTS3HD, 6);
  check_head_transform(qkv_BTS3HD, q_weight_D, k_weight_D, rotation_TP2);
  check_dtype("grad", grad_BTSC);
  check_width("grad", grad_BTSC, qkv_BTS3HD);
  const Tensor qkv = dense_heads(qkv_BTS3HD), grad = dense_heads(grad_BTSC);
  const int64_t B = qkv.size(0), T = qkv.size(1), S = qkv.size(2), C = qkv.size(4) * qkv.size(5);
  TORCH_CHECK_VALUE(grad.sizes() == at::IntArrayRef({B, T, S, C}), "grad has shape ", grad.sizes(),
                    "; it must be [", B, ", ", T, ", ", S, ", ", C, "]");
  const Transform transform(qkv, q_weight_D, k_weight_D, rotation_TP2, interleaved, eps);
  Tensor grad_qkv = at::empty(qkv.sizes(), qkv.options());
  TemporalPass pass(qkv, transform);
  pass.args.grad_out = per_head(grad, qkv.size(5));
  pass.args.grad_qkv = packed(grad_qkv);
  const Tensor partial = partial_sums(pass.tasks, qkv.size(5), pass.is_double);
  pass.args.partial = partial.data_ptr();
  pass.run(pass.is_narrow() ? SYNCFLOW_PICK_NARROW(temporal_attention_backward)
                            : SYNCFLOW_PICK(temporal_attention_backward));
  return {grad_qkv, transform.gradient(partial, 0, q_weight_D),
          transform.gradient(partial, 1, k_weight_D)};
}

Tensor qk_norm_rope(const Tensor& qkv_BN3HD, const OptionalTensor& q_weight_D,
                    const OptionalTensor& k_weight_D, const OptionalTensor& rotation_NP2,
                    bool interleaved, double eps) {
  check_packed("qkv", qkv_BN3HD, 5);
  check_head_transform(qkv_BN3HD, q_weight_D, k_weight_D, rotation_NP2);
  const Tensor qkv = dense_heads(qkv_BN3HD);
  const Transform transform(qkv, q_weight_D, k_weight_D, rotation_NP2, interleaved, eps);
  Tensor out = at::empty(qkv.sizes(), qkv.options());
  NormRopePass pass(qkv, transform);
  pass.args.out = packed(out);
  pass.run(SYNCFLOW_PICK(qk_norm_rope_forward));
  return out;
}

void qk_norm_rope_(const Tensor& qkv_BN3HD, const OptionalTensor& q_weight_D,
                   const OptionalTensor& k_weight_D, const OptionalTensor& rotation_NP2,
                   bool interleaved, double eps) {
  check_packed("qkv", qkv_BN3HD, 5);
  check_head_transform(qkv_BN3HD, q_weight_D, k_weight_D, rotation_NP2);
  TORCH_CHECK_VALUE(qkv_BN3HD.stride(-1) == 1 || qkv_BN3HD.size(-1) == 1, "qkv has strides ",
                    qkv_BN3HD.strides(), "; to be changed in place its last must be 1");
  const Transform transform(qkv_BN3HD, q_weight_D, k_weight_D, rotation_NP2, interleaved, eps);
  NormRopePass pass(qkv_BN3HD, transform);
  pass.args.out = pass.args.qkv;
  pass.run(SYNCFLOW_PICK(qk_norm_rope_forward));
  mark_changed(qkv_BN3HD);
}

std::tuple<Tensor, Tensor, Tensor> qk_norm_rope_backward(const Tensor& grad_BN3HD,
                                                         const Tensor& qkv_BN3HD,
                                                         const OptionalTensor& q_weight_D,
                                                         const OptionalTensor& k_weight_D,
                                                         const OptionalTensor& rotation_NP2,
                                                         bool interleaved, double eps) {
  check_packed("qkv", qkv_BN3HD, 5);
  check_head_transform(qkv_BN3HD, q_weight_D, k_weight_D, rotation_NP2);
  check_like("grad", grad_BN3HD, qkv_BN3HD);
  const Tensor qkv = dense_heads(qkv_BN3HD), grad = dense_heads(grad_BN3HD);
  const Transform transform(qkv, q_weight_D, k_weight_D, rotation_NP2, interleaved, eps);
  Tensor grad_qkv = at::empty(qkv.sizes(), qkv.options());
  NormRopePass pass(qkv, transform);
  pass.args.grad_out = packed(grad);
  pass.args.grad_qkv = packed(grad_qkv);
  const Tensor partial = partial_sums(pass.tasks, qkv.size(4), pass.is_double);
  pass.args.partial = partial.data_ptr();
  pass.run(SYNCFLOW_PICK(qk_norm_rope_backward));
  return {grad_qkv, transform.gradient(partial, 0, q_weight_D),
          transform.gradient(partial, 1, k_weight_D)};
}

}  // namespace syncflow::cpu
