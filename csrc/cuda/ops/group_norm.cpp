// Group normalisation of channels-last activations, without a gradient. An operator of the GPU alone.
#include <torch/library.h>

#include "glue.h"

namespace syncflow::cuda {
namespace {

// Dense and at an address that vectors may have: which kernel runs, and with it the order of the
// sums, follows from the shape alone.
Tensor at_vectors(const char* name, const Tensor& t, const Tensor& x) {
  const Tensor found = dense(name, t, x);
  return reinterpret_cast<uintptr_t>(found.data_ptr()) % 16 ? found.clone() : found;
}

// z = x + add + before is normed. Returns (z, out); z is empty where it is not stored, which it is
// with `add`, with `width`, and where `keep` asks for it.
std::tuple<Tensor, Tensor> group_norm_silu(const Tensor& x_NLC, const OptionalTensor& add_NLC,
                                           const OptionalTensor& before_C, const Tensor& weight_C,
                                           const Tensor& bias_C, int64_t groups, double eps,
                                           bool silu, bool keep, int64_t front, int64_t width) {
  TORCH_CHECK_VALUE(x_NLC.dim() == 3, "x has shape ", x_NLC.sizes(), "; it must be [N, L, C]");
  TORCH_CHECK_VALUE(front >= 0 && width >= 0 && width % 2 == 0, "front is ", front, " and width ",
                    width, "; they must be 0 or more, and width even");
  GroupNormArgs args;
  args.type = type_of("x", x_NLC);
  args.N = x_NLC.size(0), args.L = x_NLC.size(1), args.C = x_NLC.size(2);
  if (width) {
    const int64_t columns = width / 2 + 1, rows = args.L / columns;
    TORCH_CHECK_VALUE(
        args.C % 4 == 0 && rows > 1 && rows * columns == args.L && !add_NLC, "x has shape ",
        x_NLC.sizes(), "; for phases of a picture of ", width,
        " columns it must be [N, (H / 2 + 1) (width / 2 + 1), 4 C], and nothing be added");
    args.C /= 4, args.L = 2 * (rows - 1) * width;
    TORCH_CHECK_VALUE(args.L < (int64_t{1} << 31), "a picture of ", args.L, " places is too large");
  }
  TORCH_CHECK_VALUE(groups > 0 && args.C % groups == 0 && args.C <= kGroupNormChannels,
                    "groups is ", groups, "; it must divide ", args.C,
                    " channels, of which there may be ", kGroupNormChannels);
  const auto small = [&](const char* name, const Tensor& t) {
    TORCH_CHECK_VALUE(t.sizes() == at::IntArrayRef({args.C}), name, " has shape ", t.sizes(),
                      "; it must be [", args.C, "]");
    Small found(name, t, x_NLC);
    if (reinterpret_cast<uintptr_t>(found.rows.data) % 16) {
      found.tensor = found.tensor.clone();
      found.rows.data = found.tensor.data_ptr();
    }
    return found;
  };
  const Tensor x = at_vectors("x", x_NLC, x_NLC);
  const Small weight = small("weight", weight_C), bias = small("bias", bias_C);
  Small before;
  if (before_C) before = small("before", *before_C);
  Tensor add;
  if (add_NLC) {
    TORCH_CHECK_VALUE(add_NLC->sizes() == x_NLC.sizes(), "add has shape ", add_NLC->sizes(),
                      "; it must be x's ", x_NLC.sizes());
    add = at_vectors("add", *add_NLC, x_NLC);
  }
  const bool stored = keep || add_NLC || width;
  Tensor sum = at::empty({stored ? args.N : 0, args.L, args.C}, x.options());
  Tensor out = at::empty({args.N, front + args.L, args.C}, x.options());
  args.chunks = group_norm_chunks(args.N, args.L, args.C);
  const Tensor partial = scratch({args.N, args.chunks, groups, 2}, x);
  const Tensor coefficients = scratch({args.N, 2, args.C}, x);
  args.groups = groups, args.front = front, args.width = width;
  args.eps = static_cast<float>(eps);
  args.silu = silu;
  args.x = x.data_ptr();
  args.add = add.defined() ? add.data_ptr() : nullptr;
  args.sum = stored ? sum.data_ptr() : nullptr;
  args.out = out.data_ptr();
  args.weight = weight.rows, args.bias = bias.rows, args.before = before.rows;
  args.partial = partial.data_ptr<float>(), args.coefficients = coefficients.data_ptr<float>();
  run(group_norm, args, x);
  return {sum, out};
}

}  // namespace

TORCH_LIBRARY_IMPL(syncflow, CUDA, m) { m.impl("group_norm_silu", &group_norm_silu); }

}  // namespace syncflow::cuda
