// Every operator's C++ declaration. Axes: G groups of S tokens sharing one modulation row, C
// channels; B batch, T frames, S places of a frame, N tokens, H heads, D head dim, P = D / 2 pairs.
// The mathematics is in syncflow/ops/<op>.py, beside the plain PyTorch twin.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace syncflow::cpu {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

Tensor adaln(const Tensor& x_GSC, const Tensor& shift_GC, const Tensor& scale_GC, double eps);
std::tuple<Tensor, Tensor, Tensor> adaln_backward(const Tensor& grad_GSC, const Tensor& x_GSC,
                                                  const Tensor& shift_GC, const Tensor& scale_GC,
                                                  double eps);

Tensor gate_residual(const Tensor& x_GSC, const Tensor& y_GSC, const Tensor& gate_GC);
std::tuple<Tensor, Tensor> gate_residual_backward(const Tensor& grad_GSC, const Tensor& y_GSC,
                                                  const Tensor& gate_GC);

std::tuple<Tensor, Tensor> gate_residual_adaln(const Tensor& x_GSC, const Tensor& y_GSC,
                                               const OptionalTensor& gate_GC,
                                               const Tensor& shift_GC, const Tensor& scale_GC,
                                               double eps);
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gate_residual_adaln_backward(
    const Tensor& grad_sum_GSC, const Tensor& grad_out_GSC, const Tensor& sum_GSC,
    const Tensor& y_GSC, const OptionalTensor& gate_GC, const Tensor& shift_GC,
    const Tensor& scale_GC, double eps);

Tensor residual_layernorm(const Tensor& x_GSC, const Tensor& y_GSC, const Tensor& weight_C,
                          const Tensor& bias_C, double eps);
std::tuple<Tensor, Tensor, Tensor> residual_layernorm_backward(const Tensor& grad_GSC,
                                                               const Tensor& y_GSC,
                                                               const Tensor& weight_C,
                                                               const Tensor& bias_C, double eps);

Tensor temporal_attention(const Tensor& qkv_BTS3HD, const OptionalTensor& q_weight_D,
                          const OptionalTensor& k_weight_D, const OptionalTensor& rotation_TP2,
                          bool interleaved, double eps);
std::tuple<Tensor, Tensor, Tensor> temporal_attention_backward(const Tensor& grad_BTSC,
                                                               const Tensor& qkv_BTS3HD,
                                                               const OptionalTensor& q_weight_D,
                                                               const OptionalTensor& k_weight_D,
                                                               const OptionalTensor& rotation_TP2,
                                                               bool interleaved, double eps);

// R = K B rows of queries, K for each of B contexts of M keys; O = 1 key of a row's own.
Tensor cross_attention(const Tensor& q_RNHD, const Tensor& k_BHMD, const Tensor& v_BHMD,
                       const OptionalTensor& own_k_RHOD, const OptionalTensor& own_v_RHOD,
                       const OptionalTensor& term_BM, const OptionalTensor& rotation_NP2);
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> cross_attention_backward(
    const Tensor& grad_RNC, const Tensor& q_RNHD, const Tensor& k_BHMD, const Tensor& v_BHMD,
    const OptionalTensor& own_k_RHOD, const OptionalTensor& own_v_RHOD,
    const OptionalTensor& term_BM, const OptionalTensor& rotation_NP2);

Tensor qk_norm_rope(const Tensor& qkv_BN3HD, const OptionalTensor& q_weight_D,
                    const OptionalTensor& k_weight_D, const OptionalTensor& rotation_NP2,
                    bool interleaved, double eps);
void qk_norm_rope_(const Tensor& qkv_BN3HD, const OptionalTensor& q_weight_D,
                   const OptionalTensor& k_weight_D, const OptionalTensor& rotation_NP2,
                   bool interleaved, double eps);
std::tuple<Tensor, Tensor, Tensor> qk_norm_rope_backward(const Tensor& grad_BN3HD,
                                                         const Tensor& qkv_BN3HD,
                                                         const OptionalTensor& q_weight_D,
                                                         const OptionalTensor& k_weight_D,
                                                         const OptionalTensor& rotation_NP2,
                                                         bool interleaved, double eps);

Tensor bias_gelu(const Tensor& x_NC, const OptionalTensor& bias_C);
void bias_gelu_(const Tensor& x_NC, const OptionalTensor& bias_C);
std::tuple<Tensor, Tensor> bias_gelu_backward(const Tensor& grad_NC, const Tensor& x_NC,
                                              const OptionalTensor& bias_C);

// Z latent channels of [T', H', W'] latents; a patch is [p, q, r] of them.
Tensor patchify3d(const Tensor& x_BZTHW, const Tensor& weight_CZpqr, const OptionalTensor& bias_C,
                  const OptionalTensor& positions_SC);
Tensor unpatchify3d(const Tensor& tokens_BTSK, at::IntArrayRef patch, int64_t channels,
                    at::IntArrayRef size);

Tensor euler_cfg(const Tensor& x, const Tensor& conditional, const OptionalTensor& null,
                 double guidance, double h);

}  // namespace syncflow::cpu
