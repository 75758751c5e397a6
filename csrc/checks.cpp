#include "checks.h"

namespace syncflow {

void check_dtype(const char* name, const Tensor& t) {
  const auto d = t.scalar_type();
  TORCH_CHECK_VALUE(d == at::kFloat || d == at::kBFloat16 || d == at::kHalf || d == at::kDouble,
                    name, " is ", d, "; it must be float32, bfloat16, float16 or float64");
}

void check_width(const char* name, const Tensor& t, const Tensor& x) {
  TORCH_CHECK_VALUE((t.scalar_type() == at::kDouble) == (x.scalar_type() == at::kDouble), name,
                    " is ", t.scalar_type(), " beside ", x.scalar_type(),
                    "; float64 does not mix with other types");
}

void check_shape(const char* name, const Tensor& t, const Tensor& x, at::IntArrayRef shape) {
  check_dtype(name, t);
  check_width(name, t, x);
  TORCH_CHECK_VALUE(t.sizes() == shape, name, " has shape ", t.sizes(), "; it must be ", shape);
}

void check_tokens(const char* name, const Tensor& x_GSC) {
  check_dtype(name, x_GSC);
  TORCH_CHECK_VALUE(x_GSC.dim() == 3, name, " has shape ", x_GSC.sizes(), "; it must be [G, S, C]");
}

void check_modulation(const char* name, const Tensor& m_GC, const Tensor& x_GSC) {
  check_shape(name, m_GC, x_GSC, {x_GSC.size(0), x_GSC.size(2)});
}

void check_channels(const char* name, const Tensor& w_C, const Tensor& x_GSC) {
  check_shape(name, w_C, x_GSC, {x_GSC.size(2)});
}

void check_gate_residual_adaln(const Tensor& x_GSC, const Tensor& y_GSC,
                               const OptionalTensor& gate_GC, const Tensor& shift_GC,
                               const Tensor& scale_GC) {
  check_tokens("x", x_GSC);
  check_like("y", y_GSC, x_GSC);
  if (gate_GC) check_modulation("gate", *gate_GC, x_GSC);
  check_modulation("shift", shift_GC, x_GSC);
  check_modulation("scale", scale_GC, x_GSC);
}

void check_bias_gelu(const Tensor& x_NC, const OptionalTensor& bias_C) {
  check_dtype("x", x_NC);
  TORCH_CHECK_VALUE(x_NC.dim() == 2, "x has shape ", x_NC.sizes(), "; it must be [N, C]");
  if (bias_C) check_shape("bias", *bias_C, x_NC, {x_NC.size(1)});
}

void check_packed(const char* name, const Tensor& qkv, int64_t dim) {
  check_dtype(name, qkv);
  TORCH_CHECK_VALUE(qkv.dim() == dim && qkv.size(-3) == 3 && qkv.size(-1) > 0, name, " has shape ",
                    qkv.sizes(), "; it must be ",
                    dim == 6 ? "[B, T, S, 3, H, D]" : "[B, N, 3, H, D]");
}

void check_head_transform(const Tensor& qkv, const OptionalTensor& q_weight_D,
                          const OptionalTensor& k_weight_D, const OptionalTensor& rotation_NP2) {
  const int64_t N = qkv.size(1), D = qkv.size(-1);
  if (q_weight_D) check_shape("q_weight", *q_weight_D, qkv, {D});
  if (k_weight_D) check_shape("k_weight", *k_weight_D, qkv, {D});
  if (!rotation_NP2) return;
  TORCH_CHECK_VALUE(D % 2 == 0, "qkv has shape ", qkv.sizes(),
                    "; its head dimension must be even for rotary pairs");
  check_shape("rotation", *rotation_NP2, qkv, {N, D / 2, 2});
}

Patches check_patchify3d(const Tensor& x_BZTHW, const Tensor& weight_CZpqr,
                         const OptionalTensor& bias_C, const OptionalTensor& positions_SC) {
  const Tensor &x = x_BZTHW, &weight = weight_CZpqr;
  check_dtype("x", x);
  check_dtype("weight", weight);
  check_width("weight", weight, x);
  TORCH_CHECK_VALUE(x.dim() == 5, "x has shape ", x.sizes(), "; it must be [B, Z, T, H, W]");
  TORCH_CHECK_VALUE(weight.dim() == 5 && weight.size(1) == x.size(1) && weight.numel() > 0,
                    "weight has shape ", weight.sizes(), "; it must be [C, ", x.size(1),
                    ", p, q, r]");
  const Patches patches{x.size(1),      x.size(2),      x.size(3),     x.size(4),
                        weight.size(2), weight.size(3), weight.size(4)};
  const int64_t C = weight.size(0);
  if (bias_C) check_shape("bias", *bias_C, x, {C});
  if (positions_SC) check_shape("positions", *positions_SC, x, {patches.h() * patches.w(), C});
  return patches;
}

Patches check_unpatchify3d(const Tensor& tokens_BTSK, at::IntArrayRef patch, int64_t channels,
                           at::IntArrayRef size) {
  check_dtype("tokens", tokens_BTSK);
  TORCH_CHECK_VALUE(
      patch.size() == 3 && size.size() == 3 && patch[0] > 0 && patch[1] > 0 && patch[2] > 0,
      "patch is ", patch, " and size is ", size,
      "; both must be three numbers, those of the patch positive");
  const Patches patches{channels, size[0], size[1], size[2], patch[0], patch[1], patch[2]};
  const int64_t S = patches.h() * patches.w(), volume = patches.volume();
  TORCH_CHECK_VALUE(
      tokens_BTSK.dim() == 4 && tokens_BTSK.size(1) == patches.t() && tokens_BTSK.size(2) == S,
      "tokens has shape ", tokens_BTSK.sizes(), "; it must be [B, ", patches.t(), ", ", S,
      ", K] for size ", size);
  const int64_t K = tokens_BTSK.size(3);
  TORCH_CHECK_VALUE(K % volume == 0 && K / volume >= channels, "tokens has shape ",
                    tokens_BTSK.sizes(), "; its last axis must be ", volume, " times at least ",
                    channels, " channels");
  return patches;
}

}  // namespace syncflow
