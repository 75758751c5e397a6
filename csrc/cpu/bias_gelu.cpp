// Bias and tanh GELU on the CPU: checks, allocation and the split into tasks; the arithmetic is in
// simd/bias_gelu.cpp.
#include "bias_gelu.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "../checks.h"
#include "../ops.h"

namespace syncflow::cpu {
namespace {

// Elements below which a second thread costs more than it saves.
constexpr int64_t kGrain = 16384;
// Rows of a task: the bias's gradient loses digits in long sums.
constexpr int64_t kRows = 64;
// Row length where there is no bias, and so no row.
constexpr int64_t kPiece = 4096;

struct Pass {
  BiasGeluArgs args;
  int64_t tasks = 0;
  bool is_double;
  Tensor bias;

  Pass(const Tensor& x_NC, const OptionalTensor& bias_C)
      : is_double(x_NC.scalar_type() == at::kDouble) {
    args.total = x_NC.numel();
    args.C = bias_C ? x_NC.size(1) : std::min(args.total, kPiece);
    if (!args.total) return;
    args.chunk = std::clamp<int64_t>(kGrain / args.C, 1, kRows);
    const int64_t rows = (args.total + args.C - 1) / args.C;
    tasks = (rows + args.chunk - 1) / args.chunk;
    if (bias_C) {
      bias = bias_C->contiguous();
      args.bias = {static_cast<char*>(bias.data_ptr()), 0, bias.scalar_type()};
    }
  }

  Rows rows(const Tensor& t) const {
    return {static_cast<char*>(t.data_ptr()), args.C, t.scalar_type()};
  }

  template <class Function>
  void run(Function function) const {
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, args.chunk * args.C));
    at::parallel_for(0, tasks, grain,
                     [&](int64_t begin, int64_t end) { function(args, is_double, begin, end); });
  }
};

}  // namespace

Tensor bias_gelu(const Tensor& x_NC, const OptionalTensor& bias_C) {
  check_bias_gelu(x_NC, bias_C);
  const Tensor x = x_NC.contiguous();
  Tensor out = at::empty_like(x);
  Pass pass(x, bias_C);
  pass.args.x = pass.rows(x);
  pass.args.out = pass.rows(out);
  pass.run(SYNCFLOW_PICK(bias_gelu_forward));
  return out;
}

void bias_gelu_(const Tensor& x_NC, const OptionalTensor& bias_C) {
  check_bias_gelu(x_NC, bias_C);
  TORCH_CHECK_VALUE(x_NC.is_contiguous(), "x has strides ", x_NC.strides(),
                    "; to be changed in place it must be contiguous");
  Pass pass(x_NC, bias_C);
  pass.args.x = pass.args.out = pass.rows(x_NC);
  pass.run(SYNCFLOW_PICK(bias_gelu_forward));
  mark_changed(x_NC);
}

std::tuple<Tensor, Tensor> bias_gelu_backward(const Tensor& grad_NC, const Tensor& x_NC,
                                              const OptionalTensor& bias_C) {
  check_bias_gelu(x_NC, bias_C);
  check_like("grad", grad_NC, x_NC);
  const Tensor grad = grad_NC.contiguous(), x = x_NC.contiguous();
  Tensor grad_x = at::empty_like(x);
  Pass pass(x, bias_C);
  pass.args.x = pass.rows(x);
  pass.args.grad_out = pass.rows(grad);
  pass.args.grad_x = pass.rows(grad_x);
  Tensor partial;
  if (bias_C) {
    partial = at::zeros({pass.tasks, x.size(1)}, pass.is_double ? at::kDouble : at::kFloat);
    pass.args.partial = partial.data_ptr();
  }
  pass.run(SYNCFLOW_PICK(bias_gelu_backward));
  if (!bias_C) return {grad_x, at::empty({0}, x.options())};
  return {grad_x, partial.sum(0).to(bias_C->scalar_type())};
}

}  // namespace syncflow::cpu
