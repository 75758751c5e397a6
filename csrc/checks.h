// Checks of the operators' arguments, the same for every device. Each failure is a ValueError that
// names the argument and carries its value.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace syncflow {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

void check_dtype(const char* name, const Tensor& t);

// float64 is for checking gradients; it does not mix with narrower types.
void check_width(const char* name, const Tensor& t, const Tensor& x);

void check_shape(const char* name, const Tensor& t, const Tensor& x, at::IntArrayRef shape);

inline void check_like(const char* name, const Tensor& t, const Tensor& x) {
  check_shape(name, t, x, x.sizes());
}

// For an operator that has changed t: autograd then refuses to use what it saved of t before.
inline void mark_changed(const Tensor& t) { t.unsafeGetTensorImpl()->bump_version(); }

// Rows that share a modulation: x [G, S, C], and [G, C] or, of an affine norm, [C].
void check_tokens(const char* name, const Tensor& x_GSC);
void check_modulation(const char* name, const Tensor& m_GC, const Tensor& x_GSC);
void check_channels(const char* name, const Tensor& w_C, const Tensor& x_GSC);

// x and y [G, S, C] and the modulations of x + gate * y.
void check_gate_residual_adaln(const Tensor& x_GSC, const Tensor& y_GSC,
                               const OptionalTensor& gate_GC, const Tensor& shift_GC,
                               const Tensor& scale_GC);

void check_bias_gelu(const Tensor& x_NC, const OptionalTensor& bias_C);

// Packed projections, [B, T, S, 3, H, D] where dim is 6 and [B, N, 3, H, D] where it is 5.
void check_packed(const char* name, const Tensor& qkv, int64_t dim);
void check_head_transform(const Tensor& qkv, const OptionalTensor& q_weight_D,
                          const OptionalTensor& k_weight_D, const OptionalTensor& rotation_NP2);

// Patches [p, q, r] of latents [Z, T, H, W], and the grid of tokens [t, h, w] that they make.
struct Patches {
  int64_t Z, T, H, W, p, q, r;

  int64_t t() const { return parts(T, p); }
  int64_t h() const { return parts(H, q); }
  int64_t w() const { return parts(W, r); }
  int64_t volume() const { return p * q * r; }

 private:
  static int64_t parts(int64_t length, int64_t patch) { return (length + patch - 1) / patch; }
};
Patches check_patchify3d(const Tensor& x_BZTHW, const Tensor& weight_CZpqr,
                         const OptionalTensor& bias_C, const OptionalTensor& positions_SC);
Patches check_unpatchify3d(const Tensor& tokens_BTSK, at::IntArrayRef patch, int64_t channels,
                           at::IntArrayRef size);

}  // namespace syncflow
