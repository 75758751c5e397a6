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

Tensor bias_gelu(const Tensor& x_NC, const OptionalTensor& bias_C) {
  check_bias_gelu(x_NC, bias_C);
  const Tensor x = x_NC.contiguous(), out = at::empty_like(x);
  const Small bias("bias", bias_C, x);
  BiasGeluArgs args = gelu_arguments(x, bias);
  args.out = out.data_ptr();
  run(bias_gelu_forward, args, x);
  return out;
}

std::tuple<Tensor, Tensor> bias_gelu_backward_op(const Tensor& grad_NC, const Tensor& x_NC,
                                                 const OptionalTensor& bias_C) {
  check_bias_gelu(x_NC, bias_C);
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

Patchify3dArgs patch_arguments(const Patches& patches) {
  Patchify3dArgs args;
  args.Z = patches.Z, args.T = patches.T, args.H = patches.H, args.W = patches.W;
  args.p = static_cast<int32_t>(patches.p), args.q = static_cast<int32_t>(patches.q);
  args.r = static_cast<int32_t>(patches.r);
  args.grid_t = patches.t(), args.grid_h = patches.h(), args.grid_w = patches.w();
  return args;
}

Tensor patchify3d(const Tensor& x_BZTHW, const Tensor& weight_CZpqr, const OptionalTensor& bias_C,
                  const OptionalTensor& positions_SC) {
  Patchify3dArgs args =
      patch_arguments(check_patchify3d(x_BZTHW, weight_CZpqr, bias_C, positions_SC));
  const Tensor weight = weight_CZpqr.contiguous();
  args.type = type_of("weight", weight);
  args.B = x_BZTHW.size(0), args.C = weight.size(0);
  const Small x("x", x_BZTHW.contiguous(), weight), bias("bias", bias_C, weight);
  const Small positions("positions", positions_SC, weight);
  const Tensor out =
      at::empty({args.B, args.grid_t, args.grid_h * args.grid_w, args.C}, weight.options());
  args.x = x.rows.data, args.x_is_float = x.rows.is_float, args.weight = weight.data_ptr();
  args.bias = bias.rows, args.positions = positions.rows, args.out = out.data_ptr();
  run(patchify3d_forward, args, weight);
  return out;
}

Tensor unpatchify3d(const Tensor& tokens_BTSK, at::IntArrayRef patch, int64_t channels,
                    at::IntArrayRef size) {
  const Patches patches = check_unpatchify3d(tokens_BTSK, patch, channels, size);
  Patchify3dArgs args = patch_arguments(patches);
  args.type = type_of("tokens", tokens_BTSK);
  args.B = tokens_BTSK.size(0), args.stored = tokens_BTSK.size(3) / patches.volume();
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
