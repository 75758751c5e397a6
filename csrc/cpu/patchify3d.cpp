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

}  // namespace

Tensor patchify3d(const Tensor& x_BZTHW, const Tensor& weight_CZpqr, const OptionalTensor& bias_C,
                  const OptionalTensor& positions_SC) {
  const Patches patches = check_patchify3d(x_BZTHW, weight_CZpqr, bias_C, positions_SC);
  const Tensor x = x_BZTHW.contiguous();
  const bool is_double = x.scalar_type() == at::kDouble;
  const auto dtype = is_double ? at::kDouble : at::kFloat;
  Patchify3dArgs args;
  args.Z = patches.Z, args.T = patches.T, args.H = patches.H, args.W = patches.W;
  args.p = patches.p, args.q = patches.q, args.r = patches.r;
  args.grid_t = patches.t(), args.grid_h = patches.h(), args.grid_w = patches.w();
  args.C = weight_CZpqr.size(0);
  const int64_t B = x.size(0), S = args.grid_h * args.grid_w;
  Tensor table;
  if (bias_C) table = bias_C->to(dtype);
  if (positions_SC) {
    table = table.defined() ? positions_SC->to(dtype).add(table) : positions_SC->to(dtype);
    args.table_stride = args.C;
  }
  if (table.defined()) {
    table = table.contiguous();
    args.table = table.data_ptr();
  }
  args.ld = (args.C + kWidest - 1) / kWidest * kWidest;
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
  const Patches a = check_unpatchify3d(tokens_BTSK, patch, channels, size);
  const int64_t B = tokens_BTSK.size(0), K = tokens_BTSK.size(3), stored = K / a.volume();
  const int64_t rows = a.h(), columns = a.w();
  const Tensor tokens = tokens_BTSK.contiguous();
  const auto dtype = tokens.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const Tensor out = at::empty({B, channels, a.T, a.H, a.W}, tokens.options().dtype(dtype));
  // A row of patches at a time: its tokens stay in the first-level cache while each of its numbers
  // is taken to its place.
  const auto move_row = [&]<class From, class To>(const From* from, To* to, int64_t index) {
    const int64_t row = index % rows, t = index / rows % a.t(), b = index / rows / a.t();
    const From* const tokens_of_row = from + index * columns * K;
    const int64_t frames = std::min(a.p, a.T - t * a.p), lines = std::min(a.q, a.H - row * a.q);
    for (int64_t z = 0; z < channels; ++z)
      for (int64_t i = 0; i < frames; ++i)
        for (int64_t j = 0; j < lines; ++j) {
          To* const line =
              to + (((b * channels + z) * a.T + t * a.p + i) * a.H + row * a.q + j) * a.W;
          const From* const first = tokens_of_row + (i * a.q + j) * a.r * stored + z;
          for (int64_t l = 0; l < a.r; ++l)
            for (int64_t c = 0, w = l; w < a.W; ++c, w += a.r)
              line[w] = static_cast<To>(first[c * K + l * stored]);
        }
  };
  const auto move = [&]<class From, class To>(const From* from, To* to) {
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, columns * K));
    at::parallel_for(0, out.numel() ? B * a.t() * rows : 0, grain, [&](int64_t begin, int64_t end) {
      for (int64_t index = begin; index < end; ++index) move_row(from, to, index);
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
