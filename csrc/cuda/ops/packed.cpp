// Attention along time, and norm and rotation of queries and keys, on CUDA: checks, allocation, and
// the dispatcher's table.
#include <torch/library.h>

#include <cmath>

#include "glue.h"

namespace syncflow::cuda {
namespace {

// The transform, and the tensors that it points into.
struct Transform {
  HeadTransform raw;
  Small gain[2];
  Tensor rotation, partial;
  std::optional<SmallGrad> grad[2];

  Transform(const Tensor& qkv, const OptionalTensor& q_weight_D, const OptionalTensor& k_weight_D,
            const OptionalTensor& rotation_NP2, bool interleaved, double eps) {
    check_head_transform(qkv, q_weight_D, k_weight_D, rotation_NP2);
    const char* names[2] = {"q_weight", "k_weight"};
    const OptionalTensor* given[2] = {&q_weight_D, &k_weight_D};
    for (int i = 0; i < 2; ++i) {
      if (!*given[i]) continue;
      gain[i] = Small(names[i], **given[i], qkv);
      raw.weight[i] = gain[i].rows;
    }
    if (rotation_NP2) {
      check_device("rotation", *rotation_NP2, qkv);
      rotation = rotation_NP2->to(at::kFloat).contiguous();
      raw.rotation = rotation.data_ptr<float>();
    }
    raw.interleaved = interleaved;
    raw.eps = static_cast<float>(eps);
  }

  // What the backward pass writes beside the gradient of qkv.
  void want_gradients(const Tensor& qkv, int64_t slots, const OptionalTensor& q_weight_D,
                      const OptionalTensor& k_weight_D) {
    const OptionalTensor* given[2] = {&q_weight_D, &k_weight_D};
    raw.slots = slots;
    partial = scratch({slots, 2, qkv.size(-1)}, qkv);
    raw.partial = partial.data_ptr<float>();
    for (int i = 0; i < 2; ++i) {
      if (!*given[i]) continue;
      grad[i].emplace((*given[i])->sizes(), **given[i], qkv);
      if (!qkv.numel()) grad[i]->tensor.zero_();  // nothing will be launched
      raw.grad_weight[i] = grad[i]->data();
      raw.grad_weight_is_float[i] = grad[i]->is_float();
    }
  }

  Tensor gradient(int which) const {
    return grad[which] ? grad[which]->result() : at::empty({0}, partial.options());
  }
};

void check_sizes(const TemporalAttentionArgs& args, const Tensor& qkv) {
  const c10::cuda::CUDAGuard guard(qkv.device());
  const char* refusal = temporal_attention_refusal(args);
  TORCH_CHECK_VALUE(!refusal, "qkv has shape ", qkv.sizes(), ": ", refusal ? refusal : "");
}

TemporalAttentionArgs temporal_arguments(const Tensor& qkv, const Transform& transform) {
  TemporalAttentionArgs args;
  args.B = qkv.size(0), args.T = qkv.size(1), args.S = qkv.size(2);
  args.H = qkv.size(4), args.D = qkv.size(5);
  args.type = type_of("qkv", qkv);
  args.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(args.D)));
  args.transform = transform.raw;
  args.qkv = qkv.data_ptr();
  return args;
}

Tensor temporal_attention(const Tensor& qkv_BTS3HD, const OptionalTensor& q_weight_D,
                          const OptionalTensor& k_weight_D, const OptionalTensor& rotation_TP2,
                          bool interleaved, double eps) {
  check_packed("qkv", qkv_BTS3HD, 6);
  const Tensor qkv = qkv_BTS3HD.contiguous();
  const Transform transform(qkv, q_weight_D, k_weight_D, rotation_TP2, interleaved, eps);
  TemporalAttentionArgs args = temporal_arguments(qkv, transform);
  const Tensor out = at::empty({args.B, args.T, args.S, args.H * args.D}, qkv.options());
  args.out = out.data_ptr();
  check_sizes(args, qkv);
  run(temporal_attention_forward, args, qkv);
  return out;
}

std::tuple<Tensor, Tensor, Tensor> temporal_attention_backward_op(
    const Tensor& grad_BTSC, const Tensor& qkv_BTS3HD, const OptionalTensor& q_weight_D,
    const OptionalTensor& k_weight_D, const OptionalTensor& rotation_TP2, bool interleaved,
    double eps) {
  check_packed("qkv", qkv_BTS3HD, 6);
  const Tensor qkv = qkv_BTS3HD.contiguous(), grad = dense("grad", grad_BTSC, qkv);
  const Tensor grad_qkv = at::empty_like(qkv);
  Transform transform(qkv, q_weight_D, k_weight_D, rotation_TP2, interleaved, eps);
  TemporalAttentionArgs args = temporal_arguments(qkv, transform);
  TORCH_CHECK_VALUE(grad.sizes() == at::IntArrayRef({args.B, args.T, args.S, args.H * args.D}),
                    "grad has shape ", grad.sizes(), "; it must be that of the result for qkv ",
                    qkv.sizes());
  args.grad_out = grad.data_ptr(), args.grad_qkv = grad_qkv.data_ptr();
  check_sizes(args, qkv);
  transform.want_gradients(qkv, temporal_attention_slots(args), q_weight_D, k_weight_D);
  args.transform = transform.raw;
  run(temporal_attention_backward, args, qkv);
  return {grad_qkv, transform.gradient(0), transform.gradient(1)};
}

PackedStrides strides(const Tensor& t) {
  return {t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
}

QkNormRopeArgs norm_arguments(const Tensor& qkv, const Transform& transform) {
  QkNormRopeArgs args;
  args.B = qkv.size(0), args.T = qkv.size(1), args.H = qkv.size(3), args.D = qkv.size(4);
  args.type = type_of("qkv", qkv);
  args.transform = transform.raw;
  TORCH_CHECK_VALUE(args.D <= 256, "qkv has shape ", qkv.sizes(),
                    ": head dimensions above 256 have no CUDA kernel");
  args.qkv = qkv.data_ptr(), args.qkv_strides = strides(qkv);
  return args;
}

Tensor dense_heads(const Tensor& t) { return t.stride(-1) == 1 ? t : t.contiguous(); }

Tensor qk_norm_rope(const Tensor& qkv_BN3HD, const OptionalTensor& q_weight_D,
                    const OptionalTensor& k_weight_D, const OptionalTensor& rotation_NP2,
                    bool interleaved, double eps) {
  check_packed("qkv", qkv_BN3HD, 5);
  const Tensor qkv = dense_heads(qkv_BN3HD), out = at::empty(qkv.sizes(), qkv.options());
  const Transform transform(qkv, q_weight_D, k_weight_D, rotation_NP2, interleaved, eps);
  QkNormRopeArgs args = norm_arguments(qkv, transform);
  args.out = out.data_ptr(), args.out_strides = strides(out);
  run(qk_norm_rope_forward, args, qkv);
  return out;
}

void qk_norm_rope_in_place(const Tensor& qkv_BN3HD, const OptionalTensor& q_weight_D,
                           const OptionalTensor& k_weight_D, const OptionalTensor& rotation_NP2,
                           bool interleaved, double eps) {
  check_packed("qkv", qkv_BN3HD, 5);
  TORCH_CHECK_VALUE(qkv_BN3HD.stride(-1) == 1, "qkv has strides ", qkv_BN3HD.strides(),
                    "; to be changed in place its last must be 1");
  const Transform transform(qkv_BN3HD, q_weight_D, k_weight_D, rotation_NP2, interleaved, eps);
  QkNormRopeArgs args = norm_arguments(qkv_BN3HD, transform);
  args.parts = 2;
  args.out = qkv_BN3HD.data_ptr(), args.out_strides = args.qkv_strides;
  run(qk_norm_rope_forward, args, qkv_BN3HD);
  mark_changed(qkv_BN3HD);
}

std::tuple<Tensor, Tensor, Tensor> qk_norm_rope_backward_op(const Tensor& grad_BN3HD,
                                                            const Tensor& qkv_BN3HD,
                                                            const OptionalTensor& q_weight_D,
                                                            const OptionalTensor& k_weight_D,
                                                            const OptionalTensor& rotation_NP2,
                                                            bool interleaved, double eps) {
  check_packed("qkv", qkv_BN3HD, 5);
  check_like("grad", grad_BN3HD, qkv_BN3HD);
  check_device("grad", grad_BN3HD, qkv_BN3HD);
  const Tensor qkv = dense_heads(qkv_BN3HD);
  const Tensor grad = dense_heads(grad_BN3HD.to(qkv.scalar_type()));
  const Tensor grad_qkv = at::empty(qkv.sizes(), qkv.options());
  Transform transform(qkv, q_weight_D, k_weight_D, rotation_NP2, interleaved, eps);
  QkNormRopeArgs args = norm_arguments(qkv, transform);
  args.grad_out = grad.data_ptr(), args.grad_strides = strides(grad);
  args.grad_qkv = grad_qkv.data_ptr(), args.out_strides = strides(grad_qkv);
  transform.want_gradients(qkv, qk_norm_rope_slots(args), q_weight_D, k_weight_D);
  args.transform = transform.raw;
  run(qk_norm_rope_backward, args, qkv);
  return {grad_qkv, transform.gradient(0), transform.gradient(1)};
}

}  // namespace

TORCH_LIBRARY_IMPL(syncflow, CUDA, m) {
  m.impl("temporal_attention", &temporal_attention);
  m.impl("temporal_attention_backward", &temporal_attention_backward_op);
  m.impl("qk_norm_rope", &qk_norm_rope);
  m.impl("qk_norm_rope_", &qk_norm_rope_in_place);
  m.impl("qk_norm_rope_backward", &qk_norm_rope_backward_op);
}

}  // namespace syncflow::cuda
