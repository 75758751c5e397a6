// Checks shared by the operators. Each failure is a ValueError that names the argument and carries
// its value.
#pragma once

#include <ATen/core/Tensor.h>

namespace syncflow {

inline void check_dtype(const char* name, const at::Tensor& t) {
  const auto d = t.scalar_type();
  TORCH_CHECK_VALUE(d == at::kFloat || d == at::kBFloat16 || d == at::kHalf || d == at::kDouble,
                    name, " is ", d, "; it must be float32, bfloat16, float16 or float64");
}

// float64 is for checking gradients; it does not mix with narrower types.
inline void check_width(const char* name, const at::Tensor& t, const at::Tensor& x) {
  TORCH_CHECK_VALUE((t.scalar_type() == at::kDouble) == (x.scalar_type() == at::kDouble), name,
                    " is ", t.scalar_type(), " beside ", x.scalar_type(),
                    "; float64 does not mix with other types");
}

inline void check_tokens(const char* name, const at::Tensor& t) {
  check_dtype(name, t);
  TORCH_CHECK_VALUE(t.dim() == 3, name, " has shape ", t.sizes(), "; it must be [G, S, C]");
}

inline void check_like(const char* name, const at::Tensor& t, const at::Tensor& x_GSC) {
  check_dtype(name, t);
  check_width(name, t, x_GSC);
  TORCH_CHECK_VALUE(t.sizes() == x_GSC.sizes(), name, " has shape ", t.sizes(), "; it must be ",
                    x_GSC.sizes());
}

inline void check_modulation(const char* name, const at::Tensor& t, const at::Tensor& x_GSC) {
  check_dtype(name, t);
  check_width(name, t, x_GSC);
  TORCH_CHECK_VALUE(t.dim() == 2 && t.size(0) == x_GSC.size(0) && t.size(1) == x_GSC.size(2), name,
                    " has shape ", t.sizes(), "; it must be [", x_GSC.size(0), ", ", x_GSC.size(2),
                    "]");
}

inline void check_channels(const char* name, const at::Tensor& t, const at::Tensor& x_GSC) {
  check_dtype(name, t);
  check_width(name, t, x_GSC);
  TORCH_CHECK_VALUE(t.dim() == 1 && t.size(0) == x_GSC.size(2), name, " has shape ", t.sizes(),
                    "; it must be [", x_GSC.size(2), "]");
}

}  // namespace syncflow
