// LayerNorm and modulation on the CPU: checks, allocation and the split into tasks; the arithmetic
// is in simd/adaln.cpp.
#include "adaln.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "../checks.h"
#include "../ops.h"

namespace syncflow::cpu {
namespace {

// Tokens per task: enough to pay for reading the modulation rows, few enough that every core has
// work.
constexpr int64_t kChunk = 128;
// Elements below which a second thread costs more than it saves.
constexpr int64_t kGrain = 16384;
// Bytes of results that no cache keeps until they are read: they go straight to memory, which then
// need not be read before it is written.
constexpr int64_t kPastCaches = int64_t{1} << 24;

// Tokens are contiguous by now, and their rows C apart: an axis of length 1 may state any stride.
Rows rows(const Tensor& t) {
  const int64_t stride = t.dim() == 1 ? 0 : t.dim() == 2 ? t.stride(0) : t.size(2);
  return {static_cast<char*>(t.data_ptr()), stride, t.scalar_type()};
}

// A modulation is often a slice of one wider tensor: rows may lie apart, their elements may not.
Tensor dense_rows(const Tensor& t) { return t.stride(-1) == 1 ? t : t.contiguous(); }

struct Pass {
  AdalnArgs args;
  int64_t groups;
  bool is_double;

  Pass(const Tensor& x_GSC, double eps)
      : groups(x_GSC.size(0)), is_double(x_GSC.scalar_type() == at::kDouble) {
    args.tokens = x_GSC.size(1);
    args.channels = x_GSC.size(2);
    args.chunk = kChunk;
    args.chunks_per_group = (args.tokens + kChunk - 1) / kChunk;
    args.eps = eps;
  }

  void run_forward(int64_t results) {
    args.past_caches = results * groups * args.tokens * args.channels * sizeof(float) > kPastCaches;
    run(SYNCFLOW_PICK(adaln_forward));
  }

  int64_t tasks() const { return args.channels ? groups * args.chunks_per_group : 0; }

  template <class Function>
  void run(Function function) const {
    const int64_t per_task =
        std::max<int64_t>(1, std::min(args.chunk, args.tokens) * args.channels);
    at::parallel_for(0, tasks(), std::max<int64_t>(1, kGrain / per_task),
                     [&](int64_t begin, int64_t end) { function(args, is_double, begin, end); });
  }

  // Sums over the tokens of each group, [G, 3, C], in float or double.
  Tensor run_backward() {
    const auto dtype = is_double ? at::kDouble : at::kFloat;
    Tensor partial = at::zeros({groups, args.chunks_per_group, 3, args.channels}, dtype);
    args.partial = partial.data_ptr();
    run(SYNCFLOW_PICK(adaln_backward));
    return args.chunks_per_group == 1 ? partial.squeeze(1) : partial.sum(1);
  }
};

Tensor cast_like(const Tensor& sums_G3C, int64_t which, const Tensor& like) {
  return sums_G3C.select(1, which).to(like.scalar_type()).contiguous();
}

}  // namespace

Tensor adaln(const Tensor& x_GSC, const Tensor& shift_GC, const Tensor& scale_GC, double eps) {
  check_tokens("x", x_GSC);
  check_modulation("shift", shift_GC, x_GSC);
  check_modulation("scale", scale_GC, x_GSC);
  const Tensor x = x_GSC.contiguous(), shift = dense_rows(shift_GC), scale = dense_rows(scale_GC);
  Tensor out = at::empty_like(x);
  Pass pass(x, eps);
  pass.args.x = rows(x);
  pass.args.shift = rows(shift);
  pass.args.scale = rows(scale);
  pass.args.out = rows(out);
  pass.run_forward(1);
  return out;
}

std::tuple<Tensor, Tensor, Tensor> adaln_backward(const Tensor& grad_GSC, const Tensor& x_GSC,
                                                  const Tensor& shift_GC, const Tensor& scale_GC,
                                                  double eps) {
  check_tokens("x", x_GSC);
  check_like("grad", grad_GSC, x_GSC);
  check_modulation("scale", scale_GC, x_GSC);
  const Tensor grad = grad_GSC.contiguous(), x = x_GSC.contiguous(), scale = dense_rows(scale_GC);
  Tensor grad_x = at::empty_like(x);
  Pass pass(x, eps);
  pass.args.x = rows(x);
  pass.args.scale = rows(scale);
  pass.args.grad_out = rows(grad);
  pass.args.grad_x = rows(grad_x);
  const Tensor sums = pass.run_backward();
  return {grad_x, cast_like(sums, 1, shift_GC), cast_like(sums, 2, scale_GC)};
}

Tensor gate_residual(const Tensor& x_GSC, const Tensor& y_GSC, const Tensor& gate_GC) {
  check_tokens("x", x_GSC);
  check_like("y", y_GSC, x_GSC);
  check_modulation("gate", gate_GC, x_GSC);
  const Tensor x = x_GSC.contiguous(), y = y_GSC.contiguous(), gate = dense_rows(gate_GC);
  Tensor sum = at::empty_like(x);
  Pass pass(x, 0);
  pass.args.x = rows(x);
  pass.args.y = rows(y);
  pass.args.gate = rows(gate);
  pass.args.sum = rows(sum);
  pass.run_forward(1);
  return sum;
}

std::tuple<Tensor, Tensor> gate_residual_backward(const Tensor& grad_GSC, const Tensor& y_GSC,
                                                  const Tensor& gate_GC) {
  check_tokens("y", y_GSC);
  check_like("grad", grad_GSC, y_GSC);
  check_modulation("gate", gate_GC, y_GSC);
  const Tensor grad = grad_GSC.contiguous(), y = y_GSC.contiguous(), gate = dense_rows(gate_GC);
  Tensor grad_y = at::empty_like(y);
  Pass pass(y, 0);
  pass.args.y = rows(y);
  pass.args.gate = rows(gate);
  pass.args.grad_sum = rows(grad);
  pass.args.grad_y = rows(grad_y);
  return {grad_y, cast_like(pass.run_backward(), 0, gate_GC)};
}

std::tuple<Tensor, Tensor> gate_residual_adaln(const Tensor& x_GSC, const Tensor& y_GSC,
                                               const OptionalTensor& gate_GC,
                                               const Tensor& shift_GC, const Tensor& scale_GC,
                                               double eps) {
  check_gate_residual_adaln(x_GSC, y_GSC, gate_GC, shift_GC, scale_GC);
  const Tensor x = x_GSC.contiguous(), y = y_GSC.contiguous();
  const Tensor gate = gate_GC ? dense_rows(*gate_GC) : Tensor();
  const Tensor shift = dense_rows(shift_GC), scale = dense_rows(scale_GC);
  Tensor sum = at::empty_like(x), out = at::empty_like(x);
  Pass pass(x, eps);
  pass.args.x = rows(x);
  pass.args.y = rows(y);
  if (gate_GC) pass.args.gate = rows(gate);
  pass.args.shift = rows(shift);
  pass.args.scale = rows(scale);
  pass.args.sum = rows(sum);
  pass.args.out = rows(out);
  pass.run_forward(2);
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
  const Tensor grad_sum = grad_sum_GSC.contiguous(), grad_out = grad_out_GSC.contiguous();
  const Tensor sum = sum_GSC.contiguous(), y = y_GSC.contiguous(), scale = dense_rows(scale_GC);
  const Tensor gate = gate_GC ? dense_rows(*gate_GC) : Tensor();
  Tensor grad_x = at::empty_like(sum), grad_y = gate_GC ? at::empty_like(y) : Tensor();
  Pass pass(sum, eps);
  pass.args.x = rows(sum);
  pass.args.y = rows(y);
  pass.args.scale = rows(scale);
  pass.args.grad_out = rows(grad_out);
  pass.args.grad_sum = rows(grad_sum);
  pass.args.grad_x = rows(grad_x);
  if (gate_GC) {
    pass.args.gate = rows(gate);
    pass.args.grad_y = rows(grad_y);
  }
  const Tensor sums = pass.run_backward();
  // Without a gate y's gradient is x's, in y's own type; a copy, as an operator may not return one
  // tensor twice.
  if (!gate_GC) grad_y = grad_x.to(y.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
  const Tensor grad_gate = gate_GC ? cast_like(sums, 0, *gate_GC) : at::empty({0}, sum.options());
  return {grad_x, grad_y, grad_gate, cast_like(sums, 1, shift_GC), cast_like(sums, 2, scale_GC)};
}

Tensor residual_layernorm(const Tensor& x_GSC, const Tensor& y_GSC, const Tensor& weight_C,
                          const Tensor& bias_C, double eps) {
  check_tokens("x", x_GSC);
  check_like("y", y_GSC, x_GSC);
  check_channels("weight", weight_C, x_GSC);
  check_channels("bias", bias_C, x_GSC);
  const Tensor x = x_GSC.contiguous(), y = y_GSC.contiguous();
  const Tensor weight = weight_C.contiguous(), bias = bias_C.contiguous();
  Tensor out = at::empty_like(x);
  Pass pass(x, eps);
  pass.args.post_norm = true;
  pass.args.x = rows(x);
  pass.args.y = rows(y);
  pass.args.scale = rows(weight);
  pass.args.shift = rows(bias);
  pass.args.out = rows(out);
  pass.run_forward(1);
  return out;
}

std::tuple<Tensor, Tensor, Tensor> residual_layernorm_backward(const Tensor& grad_GSC,
                                                               const Tensor& y_GSC,
                                                               const Tensor& weight_C,
                                                               const Tensor& bias_C, double eps) {
  check_tokens("y", y_GSC);
  check_like("grad", grad_GSC, y_GSC);
  check_channels("weight", weight_C, y_GSC);
  const Tensor grad = grad_GSC.contiguous(), y = y_GSC.contiguous(), weight = weight_C.contiguous();
  Tensor grad_y = at::empty_like(y);
  Pass pass(y, eps);
  pass.args.post_norm = true;
  pass.args.y = rows(y);
  pass.args.scale = rows(weight);
  pass.args.grad_out = rows(grad);
  pass.args.grad_y = rows(grad_y);
  const Tensor sums = pass.run_backward().sum(0, /*keepdim=*/true);
  return {grad_y, cast_like(sums, 2, weight_C).squeeze(0), cast_like(sums, 1, bias_C).squeeze(0)};
}

}  // namespace syncflow::cpu
