// Every operator's C++ declaration. Axes: G groups of S tokens sharing one modulation row, C
// channels. The mathematics is in syncflow/ops/<op>.py, beside the plain PyTorch twin.
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

}  // namespace syncflow::cpu
