// Latents to tokens and back on the CPU. The product of patches and weight is in
// simd/patchify3d.cpp; the way back only moves numbers.
#include "patchify3d.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "../checks.h"
#include "../ops.h"

namespace syncflow::cpu {
namespace {

// Elements below which a second thread costs more than it saves.
constexpr int64_t kGrain = 16384;
// Rows of the weight are padded to whole vectors of the widest instruction set.
constexpr int64_t kWidest = 16;

int64_t parts(int64_t length, int64_t patch) { return (length + patch - 1) / patch; }

}  // namespace

Tensor patchify3d(const Tensor& x_BZTHW, const Tensor& weight_CZpqr, const OptionalTensor& bias_C,
                  const OptionalTensor& positions_SC) {
  check_dtype("x", x_BZTHW);
  check_dtype("weight", weight_CZpqr);
  check_width("weight", weight_CZpqr, x_BZTHW);
  TORCH_CHECK_VALUE(x_BZTHW.dim() == 5, "x has shape ", x_BZTHW.sizes(),
                    "; it must be [B, Z, T, H, W]");
  TORCH_CHECK_VALUE(weight_CZpqr.dim() == 5 && weight_CZpqr.size(1) == x_BZTHW.size(1) &&
                        weight_CZpqr.numel() > 0,
                    "weight has shape ", weight_CZpqr.sizes(), "; it must be [C, ",
                    x_BZTHW.size(1), ", p, q, r]");
  const Tensor x = x_BZTHW.contiguous();
  const bool is_double = x.scalar_type() == at::kDouble;
  const auto dtype = is_double ? at::kDouble : at::kFloat;
  Patchify3dArgs args;
  args.Z = x.size(1), args.T = x.size(2), args.H = x.size(3), args.W = x.size(4);
  args.C = weight_CZpqr.size(0);
  args.p = weight_CZpqr.size(2), args.q = weight_CZpqr.size(3), args.r = weight_CZpqr.size(4);
  args.grid_t = parts(args.T, args.p);
  args.grid_h = parts(args.H, args.q);
  args.grid_w = parts(args.W, args.r);
  const int64_t B = x.size(0), S = args.grid_h * args.grid_w;
  Tensor table;
  if (bias_C) {
    check_dtype("bias", *bias_C);
    check_width("bias", *bias_C, x);
    TORCH_CHECK_VALUE(bias_C->dim() == 1 && bias_C->size(0) == args.C, "bias has shape ",
                      bias_C->sizes(), "; it must be [", args.C, "]");
    table = bias_C->to(dtype);
  }
  if (positions_SC) {
    check_dtype("positions", *positions_SC);
    check_width("positions", *positions_SC, x);
    TORCH_CHECK_VALUE(positions_SC->sizes() == at::IntArrayRef({S, args.C}),
                      "positions has shape ", positions_SC->sizes(), "; it must be [", S, ", ",
                      args.C, "]");
    table = table.defined() ? positions_SC->to(dtype).add(table) : positions_SC->to(dtype);
    args.table_stride = args.C;
  }
  if (table.defined()) {
    table = table.contiguous();
    args.table = table.data_ptr();
  }
  args.ld = parts(args.C, kWidest) * kWidest;
  const int64_t K = weight_CZpqr.numel() / args.C;
  const Tensor weight = at::zeros({K, args.ld}, x.options().dtype(dtype));
  weight.narrow(1, 0, args.C).copy_(weight_CZpqr.flatten(1).t());
  args.weight = weight.data_ptr();
  args.x = static_cast<const char*>(x.data_ptr());
  args.x_dtype = x.scalar_type();
  const Tensor out = at::empty({B, args.grid_t, S, args.C}, weight_CZpqr.options());
  args.out = static_cast<const char*>(out.data_ptr());
  args.out_dtype = out.scalar_type();
  const int64_t per_task = std::max<int64_t>(1, args.grid_w * args.C);
  at::parallel_for(0, out.numel() ? B * args.grid_t * args.grid_h : 0,
                   std::max<int64_t>(1, kGrain / per_task), [&](int64_t begin, int64_t end) {
                     SYNCFLOW_PICK(patchify3d_forward)(args, is_double, begin, end);
                   });
  return out;
}

Tensor unpatchify3d(const Tensor& tokens_BTSK, at::IntArrayRef patch, int64_t channels,
                    at::IntArrayRef size) {
  check_dtype("tokens", tokens_BTSK);
  TORCH_CHECK_VALUE(patch.size() == 3 && size.size() == 3 && patch[0] > 0 && patch[1] > 0 &&
                        patch[2] > 0,
                    "patch is ", patch, " and size is ", size, "; both must be three numbers");
  const int64_t p = patch[0], q = patch[1], r = patch[2], T = size[0], H = size[1], W = size[2];
  const int64_t grid_t = parts(T, p), grid_h = parts(H, q), grid_w = parts(W, r);
  TORCH_CHECK_VALUE(tokens_BTSK.dim() == 4 && tokens_BTSK.size(1) == grid_t &&
                        tokens_BTSK.size(2) == grid_h * grid_w,
                    "tokens has shape ", tokens_BTSK.sizes(), "; it must be [B, ", grid_t, ", ",
                    grid_h * grid_w, ", K] for size ", size);
  const int64_t B = tokens_BTSK.size(0), K = tokens_BTSK.size(3), stored = K / (p * q * r);
  TORCH_CHECK_VALUE(K % (p * q * r) == 0 && stored >= channels, "tokens has shape ",
                    tokens_BTSK.sizes(), "; its last axis must be ", p * q * r,
                    " times at least ", channels, " channels");
  const Tensor tokens = tokens_BTSK.contiguous();
  const auto dtype = tokens.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const Tensor out = at::empty({B, channels, T, H, W}, tokens.options().dtype(dtype));
  const auto move = [&]<class From, class To>(const From* from, To* to) {
    at::parallel_for(
        0, out.numel() ? B * channels * T * H : 0, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, W)),
        [&](int64_t begin, int64_t end) {
          for (int64_t line = begin; line < end; ++line) {
            const int64_t h = line % H, t = line / H % T, z = line / H / T % channels;
            const int64_t b = line / H / T / channels;
            const From* row =
                from + ((b * grid_t + t / p) * grid_h + h / q) * grid_w * K +
                (t % p * q + h % q) * r * stored + z;
            To* const target = to + line * W;
            for (int64_t w = 0; w < W; ++w)
              target[w] = static_cast<To>(row[w / r * K + w % r * stored]);
          }
        });
  };
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, tokens.scalar_type(), "unpatchify3d", [&] {
        using To = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
        move(tokens.const_data_ptr<scalar_t>(), out.mutable_data_ptr<To>());
      });
  return out;
}

}  // namespace syncflow::cpu
