// GELU, patches and the solver's update on CUDA: checks, allocation, and the dispatcher's table.
#include <torch/library.h>

#include "glue.h"

namespace syncflow::cuda {
namespace {

BiasGeluArgs gelu_arguments(const Tensor& x, const Small& bias) {
  BiasGeluArgs args;
  args.N = x.size(0), args.C = x.size(1);
  args.type = type_of("x", x);
  args.x = x.data_ptr(), args.bias = bias.rows;
  return args;
}

void check_gelu(const Tensor& x_NC, const OptionalTensor& bias_C) {
  TORCH_CHECK_VALUE(x_NC.dim() == 2, "x has shape ", x_NC.sizes(), "; it must be [N, C]");
  TORCH_CHECK_VALUE(!bias_C || (bias_C->dim() == 1 && bias_C->size(0) == x_NC.size(1)),
                    "bias has shape ", bias_C->sizes(), "; it must be [", x_NC.size(1), "]");
}

Tensor bias_gelu(const Tensor& x_NC, const OptionalTensor& bias_C) {
  check_gelu(x_NC, bias_C);
  const Tensor x = x_NC.contiguous(), out = at::empty_like(x);
  const Small bias("bias", bias_C, x);
  BiasGeluArgs args = gelu_arguments(x, bias);
  args.out = out.data_ptr();
  run(bias_gelu_forward, args, x);
  return out;
}

std::tuple<Tensor, Tensor> bias_gelu_backward_op(const Tensor& grad_NC, const Tensor& x_NC,
                                                 const OptionalTensor& bias_C) {
  check_gelu(x_NC, bias_C);
  check_like("grad", grad_NC, x_NC);
  const Tensor x = x_NC.contiguous(), grad = dense("grad", grad_NC, x);
  const Tensor grad_x = at::empty_like(x);
  const Small bias("bias", bias_C, x);
  BiasGeluArgs args = gelu_arguments(x, bias);
  args.grad_out = grad.data_ptr(), args.grad_x = grad_x.data_ptr();
  args.chunks = bias_gelu_chunks(args);
  if (!bias_C) {
    run(bias_gelu_backward, args, x);
    return {grad_x, at::empty({0}, x.options())};
  }
  const SmallGrad grad_bias(bias_C->sizes(), *bias_C, x);
  if (!args.N) return {grad_x, grad_bias.result().zero_()};
  const Tensor partial = scratch({args.chunks, args.C}, x);
  args.partial = partial.data_ptr<float>();
  args.grad_bias = grad_bias.data(), args.grad_bias_is_float = grad_bias.is_float();
  run(bias_gelu_backward, args, x);
  return {grad_x, grad_bias.result()};
}

int64_t parts(int64_t length, int64_t patch) { return (length + patch - 1) / patch; }

void set_grid(Patchify3dArgs& args) {
  args.grid_t = parts(args.T, args.p);
  args.grid_h = parts(args.H, args.q);
  args.grid_w = parts(args.W, args.r);
}

Tensor patchify3d(const Tensor& x_BZTHW, const Tensor& weight_CZpqr, const OptionalTensor& bias_C,
                  const OptionalTensor& positions_SC) {
  TORCH_CHECK_VALUE(x_BZTHW.dim() == 5, "x has shape ", x_BZTHW.sizes(),
                    "; it must be [B, Z, T, H, W]");
  TORCH_CHECK_VALUE(weight_CZpqr.dim() == 5 && weight_CZpqr.size(1) == x_BZTHW.size(1) &&
                        weight_CZpqr.numel() > 0,
                    "weight has shape ", weight_CZpqr.sizes(), "; it must be [C, ",
                    x_BZTHW.size(1), ", p, q, r]");
  const Tensor weight = weight_CZpqr.contiguous();
  Patchify3dArgs args;
  args.type = type_of("weight", weight);
  args.B = x_BZTHW.size(0), args.Z = x_BZTHW.size(1), args.T = x_BZTHW.size(2);
  args.H = x_BZTHW.size(3), args.W = x_BZTHW.size(4), args.C = weight.size(0);
  args.p = static_cast<int32_t>(weight.size(2)), args.q = static_cast<int32_t>(weight.size(3));
  args.r = static_cast<int32_t>(weight.size(4));
  set_grid(args);
  const int64_t S = args.grid_h * args.grid_w;
  TORCH_CHECK_VALUE(!bias_C || (bias_C->dim() == 1 && bias_C->size(0) == args.C),
                    "bias has shape ", bias_C->sizes(), "; it must be [", args.C, "]");
  TORCH_CHECK_VALUE(!positions_SC || positions_SC->sizes() == at::IntArrayRef({S, args.C}),
                    "positions has shape ", positions_SC->sizes(), "; it must be [", S, ", ",
                    args.C, "]");
  const Small x("x", x_BZTHW.contiguous(), weight), bias("bias", bias_C, weight);
  const Small positions("positions", positions_SC, weight);
  const Tensor out = at::empty({args.B, args.grid_t, S, args.C}, weight.options());
  args.x = x.rows.data, args.x_is_float = x.rows.is_float, args.weight = weight.data_ptr();
  args.bias = bias.rows, args.positions = positions.rows, args.out = out.data_ptr();
  run(patchify3d_forward, args, weight);
  return out;
}

Tensor unpatchify3d(const Tensor& tokens_BTSK, at::IntArrayRef patch, int64_t channels,
                    at::IntArrayRef size) {
  TORCH_CHECK_VALUE(patch.size() == 3 && size.size() == 3 && patch[0] > 0 && patch[1] > 0 &&
                        patch[2] > 0,
                    "patch is ", patch, " and size is ", size, "; both must be three numbers");
  Patchify3dArgs args;
  args.type = type_of("tokens", tokens_BTSK);
  args.p = static_cast<int32_t>(patch[0]), args.q = static_cast<int32_t>(patch[1]);
  args.r = static_cast<int32_t>(patch[2]);
  args.Z = channels, args.T = size[0], args.H = size[1], args.W = size[2];
  set_grid(args);
  const int64_t volume = patch[0] * patch[1] * patch[2];
  TORCH_CHECK_VALUE(tokens_BTSK.dim() == 4 && tokens_BTSK.size(1) == args.grid_t &&
                        tokens_BTSK.size(2) == args.grid_h * args.grid_w,
                    "tokens has shape ", tokens_BTSK.sizes(), "; it must be [B, ", args.grid_t,
                    ", ", args.grid_h * args.grid_w, ", K] for size ", size);
  args.B = tokens_BTSK.size(0), args.stored = tokens_BTSK.size(3) / volume;
  TORCH_CHECK_VALUE(tokens_BTSK.size(3) % volume == 0 && args.stored >= channels,
                    "tokens has shape ", tokens_BTSK.sizes(), "; its last axis must be ", volume,
                    " times at least ", channels, " channels");
  const Tensor tokens = tokens_BTSK.contiguous();
  const Tensor out = scratch({args.B, channels, args.T, args.H, args.W}, tokens);
  args.x = tokens.data_ptr(), args.out = out.data_ptr();
  run(unpatchify3d_forward, args, tokens);
  return out;
}

Tensor euler_cfg(const Tensor& x, const Tensor& conditional, const OptionalTensor& null,
                 double guidance, double h) {
  check_like("conditional", conditional, x);
  if (null) check_like("null", *null, x);
  const Tensor from = x.contiguous(), out = at::empty_like(from);
  const Small slope("conditional", conditional.contiguous(), from);
  const Small unguided("null", null ? OptionalTensor(null->contiguous()) : null, from);
  EulerCfgArgs args;
  args.total = from.numel(), args.type = type_of("x", from);
  args.guidance = static_cast<float>(guidance), args.h = static_cast<float>(h);
  args.x = from.data_ptr(), args.out = out.data_ptr();
  args.conditional = slope.rows, args.null = unguided.rows;
  run(euler_cfg_forward, args, from);
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(syncflow, CUDA, m) {
  m.impl("bias_gelu", &bias_gelu);
  m.impl("bias_gelu_backward", &bias_gelu_backward_op);
  m.impl("patchify3d", &patchify3d);
  m.impl("unpatchify3d", &unpatchify3d);
  m.impl("euler_cfg", &euler_cfg);
}

}  // namespace syncflow::cuda
