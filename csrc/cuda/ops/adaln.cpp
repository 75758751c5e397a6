// LayerNorm and modulation on CUDA: checks, allocation, and the dispatcher's table.
#include <torch/library.h>

#include "glue.h"

namespace syncflow::cuda {
namespace {

AdalnArgs arguments(const Tensor& x, double eps) {
  AdalnArgs args;
  args.groups = x.size(0), args.tokens = x.size(1), args.channels = x.size(2);
  args.eps = static_cast<float>(eps);
  args.type = type_of("x", x);
  return args;
}

// Runs the backward pass into args' gradients of small operands.
void run_backward(AdalnArgs& args, const Tensor& x, const SmallGrad* gate, const SmallGrad* shift,
                  const SmallGrad* scale) {
  args.chunks = adaln_chunks(args.groups, args.tokens);
  const Tensor partial = scratch({args.groups, args.chunks, 3, args.channels}, x);
  args.partial = partial.data_ptr<float>();
  Tensor stats;
  if (adaln_needs_stats(args)) {
    stats = scratch({args.groups * args.tokens, 2}, x);
    args.stats = stats.data_ptr<float>();
  }
  if (gate) args.grad_gate = gate->data(), args.grad_gate_is_float = gate->is_float();
  if (shift) args.grad_shift = shift->data(), args.grad_shift_is_float = shift->is_float();
  if (scale) args.grad_scale = scale->data(), args.grad_scale_is_float = scale->is_float();
  run(adaln_backward, args, x);
}

Tensor adaln(const Tensor& x_GSC, const Tensor& shift_GC, const Tensor& scale_GC, double eps) {
  check_tokens("x", x_GSC);
  check_modulation("shift", shift_GC, x_GSC);
  check_modulation("scale", scale_GC, x_GSC);
  const Tensor x = x_GSC.contiguous(), out = at::empty_like(x);
  const Small shift("shift", shift_GC, x), scale("scale", scale_GC, x);
  AdalnArgs args = arguments(x, eps);
  args.x = x.data_ptr(), args.out = out.data_ptr();
  args.shift = shift.rows, args.scale = scale.rows;
  run(adaln_forward, args, x);
  return out;
}

std::tuple<Tensor, Tensor, Tensor> adaln_backward_op(const Tensor& grad_GSC, const Tensor& x_GSC,
                                                     const Tensor& shift_GC, const Tensor& scale_GC,
                                                     double eps) {
  check_tokens("x", x_GSC);
  check_like("grad", grad_GSC, x_GSC);
  check_modulation("scale", scale_GC, x_GSC);
  const Tensor x = x_GSC.contiguous(), grad = dense("grad", grad_GSC, x);
  const Tensor grad_x = at::empty_like(x);
  const Small scale("scale", scale_GC, x);
  const SmallGrad grad_shift(shift_GC.sizes(), shift_GC, x);
  const SmallGrad grad_scale(scale_GC.sizes(), scale_GC, x);
  AdalnArgs args = arguments(x, eps);
  args.x = x.data_ptr(), args.scale = scale.rows;
  args.grad_out = grad.data_ptr(), args.grad_x = grad_x.data_ptr();
  run_backward(args, x, nullptr, &grad_shift, &grad_scale);
  return {grad_x, grad_shift.result(), grad_scale.result()};
}

Tensor gate_residual(const Tensor& x_GSC, const Tensor& y_GSC, const Tensor& gate_GC) {
  check_tokens("x", x_GSC);
  check_like("y", y_GSC, x_GSC);
  check_modulation("gate", gate_GC, x_GSC);
  const Tensor x = x_GSC.contiguous(), y = dense("y", y_GSC, x), sum = at::empty_like(x);
  const Small gate("gate", gate_GC, x);
  AdalnArgs args = arguments(x, 0);
  args.x = x.data_ptr(), args.y = y.data_ptr(), args.gate = gate.rows, args.sum = sum.data_ptr();
  run(adaln_forward, args, x);
  return sum;
}

std::tuple<Tensor, Tensor> gate_residual_backward(const Tensor& grad_GSC, const Tensor& y_GSC,
                                                  const Tensor& gate_GC) {
  check_tokens("y", y_GSC);
  check_like("grad", grad_GSC, y_GSC);
  check_modulation("gate", gate_GC, y_GSC);
  const Tensor y = y_GSC.contiguous(), grad = dense("grad", grad_GSC, y);
  const Tensor grad_y = at::empty_like(y);
  const Small gate("gate", gate_GC, y);
  const SmallGrad grad_gate(gate_GC.sizes(), gate_GC, y);
  AdalnArgs args = arguments(y, 0);
  args.y = y.data_ptr(), args.gate = gate.rows;
  args.grad_sum = grad.data_ptr(), args.grad_y = grad_y.data_ptr();
  run_backward(args, y, &grad_gate, nullptr, nullptr);
  return {grad_y, grad_gate.result()};
}

std::tuple<Tensor, Tensor> gate_residual_adaln(const Tensor& x_GSC, const Tensor& y_GSC,
                                               const OptionalTensor& gate_GC,
                                               const Tensor& shift_GC, const Tensor& scale_GC,
                                               double eps) {
  check_gate_residual_adaln(x_GSC, y_GSC, gate_GC, shift_GC, scale_GC);
  const Tensor x = x_GSC.contiguous(), y = dense("y", y_GSC, x);
  const Tensor sum = at::empty_like(x), out = at::empty_like(x);
  const Small gate("gate", gate_GC, x), shift("shift", shift_GC, x), scale("scale", scale_GC, x);
  AdalnArgs args = arguments(x, eps);
  args.x = x.data_ptr(), args.y = y.data_ptr();
  args.sum = sum.data_ptr(), args.out = out.data_ptr();
  args.gate = gate.rows, args.shift = shift.rows, args.scale = scale.rows;
  run(adaln_forward, args, x);
  return {sum, out};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gate_residual_adaln_backward(
    const Tensor& grad_sum_GSC, const Tensor& grad_out_GSC, const Tensor& sum_GSC,
    const Tensor& y_GSC, const OptionalTensor& gate_GC, const Tensor& shift_GC,
    const Tensor& scale_GC, double eps) {
  check_tokens("sum", sum_GSC);
  check_like("grad_sum", grad_sum_GSC, sum_GSC);
  check_like("grad_out", grad_out_GSC, sum_GSC);
  check_like("y", y_GSC, sum_GSC);
  if (gate_GC) check_modulation("gate", *gate_GC, sum_GSC);
  check_modulation("scale", scale_GC, sum_GSC);
  const Tensor sum = sum_GSC.contiguous(), y = dense("y", y_GSC, sum);
  const Tensor grad_sum = dense("grad_sum", grad_sum_GSC, sum);
  const Tensor grad_out = dense("grad_out", grad_out_GSC, sum);
  const Tensor grad_x = at::empty_like(sum), grad_y = at::empty_like(sum);
  const Small gate("gate", gate_GC, sum), scale("scale", scale_GC, sum);
  const SmallGrad grad_shift(shift_GC.sizes(), shift_GC, sum);
  const SmallGrad grad_scale(scale_GC.sizes(), scale_GC, sum);
  std::optional<SmallGrad> grad_gate;
  if (gate_GC) grad_gate.emplace(gate_GC->sizes(), *gate_GC, sum);
  AdalnArgs args = arguments(sum, eps);
  args.x = sum.data_ptr(), args.y = y.data_ptr();
  args.gate = gate.rows, args.scale = scale.rows;
  args.grad_sum = grad_sum.data_ptr(), args.grad_out = grad_out.data_ptr();
  args.grad_x = grad_x.data_ptr(), args.grad_y = grad_y.data_ptr();
  run_backward(args, sum, grad_gate ? &*grad_gate : nullptr, &grad_shift, &grad_scale);
  return {grad_x, grad_y.to(y_GSC.scalar_type()),
          grad_gate ? grad_gate->result() : at::empty({0}, sum.options()), grad_shift.result(),
          grad_scale.result()};
}

// LN(x + y) * weight + bias; the sum is not kept.
Tensor layernorm_of_sum(const Tensor& x_GSC, const Tensor& y_GSC, const Tensor& weight_C,
                        const Tensor& bias_C, double eps) {
  check_tokens("x", x_GSC);
  check_like("y", y_GSC, x_GSC);
  for (const Tensor& gain : {weight_C, bias_C})
    TORCH_CHECK_VALUE(gain.sizes() == at::IntArrayRef({x_GSC.size(2)}), "a gain has shape ",
                      gain.sizes(), "; it must be [C] for x ", x_GSC.sizes());
  const Tensor x = x_GSC.contiguous(), y = dense("y", y_GSC, x), out = at::empty_like(x);
  const Small weight("weight", weight_C, x), bias("bias", bias_C, x);
  AdalnArgs args = arguments(x, eps);
  args.plain_gain = 1;
  args.x = x.data_ptr(), args.y = y.data_ptr(), args.out = out.data_ptr();
  args.scale = weight.rows, args.shift = bias.rows;
  Tensor sum;
  if (!adaln_keeps_sum(args)) {
    sum = at::empty_like(x);
    args.sum = sum.data_ptr();
  }
  run(adaln_forward, args, x);
  return out;
}

Tensor residual_layernorm(const Tensor& x_GSC, const Tensor& y_GSC, const Tensor& weight_C,
                          const Tensor& bias_C, double eps) {
  check_tokens("x", x_GSC);
  check_like("y", y_GSC, x_GSC);
  check_channels("weight", weight_C, x_GSC);
  check_channels("bias", bias_C, x_GSC);
  const Tensor x = x_GSC.contiguous(), y = dense("y", y_GSC, x), out = at::empty_like(x);
  const Small weight("weight", weight_C, x), bias("bias", bias_C, x);
  AdalnArgs args = arguments(x, eps);
  args.post_norm = 1;
  args.x = x.data_ptr(), args.y = y.data_ptr(), args.out = out.data_ptr();
  args.scale = weight.rows, args.shift = bias.rows;
  run(adaln_forward, args, x);
  return out;
}

std::tuple<Tensor, Tensor, Tensor> residual_layernorm_backward(const Tensor& grad_GSC,
                                                               const Tensor& y_GSC,
                                                               const Tensor& weight_C,
                                                               const Tensor& bias_C, double eps) {
  check_tokens("y", y_GSC);
  check_like("grad", grad_GSC, y_GSC);
  check_channels("weight", weight_C, y_GSC);
  const Tensor y = y_GSC.contiguous(), grad = dense("grad", grad_GSC, y);
  const Tensor grad_y = at::empty_like(y);
  const Small weight("weight", weight_C, y);
  const SmallGrad grad_bias(bias_C.sizes(), bias_C, y), grad_weight(weight_C.sizes(), weight_C, y);
  AdalnArgs args = arguments(y, eps);
  args.post_norm = 1;
  args.tokens *= args.groups, args.groups = 1;  // one set of gains for all tokens
  args.x = y.data_ptr(), args.scale = weight.rows;
  args.grad_out = grad.data_ptr(), args.grad_x = grad_y.data_ptr();
  run_backward(args, y, nullptr, &grad_bias, &grad_weight);
  return {grad_y, grad_weight.result(), grad_bias.result()};
}

}  // namespace

TORCH_LIBRARY_IMPL(syncflow, CUDA, m) {
  m.impl("layernorm_of_sum", &layernorm_of_sum);
  m.impl("adaln", &adaln);
  m.impl("adaln_backward", &adaln_backward_op);
  m.impl("gate_residual", &gate_residual);
  m.impl("gate_residual_backward", &gate_residual_backward);
  m.impl("gate_residual_adaln", &gate_residual_adaln);
  m.impl("gate_residual_adaln_backward", &gate_residual_adaln_backward);
  m.impl("residual_layernorm", &residual_layernorm);
  m.impl("residual_layernorm_backward", &residual_layernorm_backward);
}

}  // namespace syncflow::cuda
