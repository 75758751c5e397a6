// What cross-attention by a library's kernel needs beside it on CUDA: rotation in place, and a row's
// own key. On a CPU one kernel does all of cross_attention.
#include <torch/library.h>

#include "glue.h"

namespace syncflow::cuda {
namespace {

HeadStrides head_strides(const Tensor& t) { return {t.stride(0), t.stride(1), t.stride(2)}; }

// Turns the pairs of x's heads where they lie.
void rotate_in_place(const Tensor& x_BNHD, const Tensor& rotation_NP2, bool interleaved) {
  TORCH_CHECK_VALUE(x_BNHD.dim() == 4 && x_BNHD.size(3) % 2 == 0, "x has shape ", x_BNHD.sizes(),
                    "; it must be [B, N, H, D] with an even D");
  TORCH_CHECK_VALUE(x_BNHD.stride(3) == 1, "x has strides ", x_BNHD.strides(),
                    "; to be changed in place its last must be 1");
  TORCH_CHECK_VALUE(
      rotation_NP2.sizes() == at::IntArrayRef({x_BNHD.size(1), x_BNHD.size(3) / 2, 2}),
      "rotation has shape ", rotation_NP2.sizes(), "; it must be [N, D/2, 2] for x ",
      x_BNHD.sizes());
  check_device("rotation", rotation_NP2, x_BNHD);
  const Tensor rotation = rotation_NP2.to(at::kFloat).contiguous();
  RotateArgs args;
  args.B = x_BNHD.size(0), args.N = x_BNHD.size(1), args.H = x_BNHD.size(2);
  args.D = x_BNHD.size(3);
  args.type = type_of("x", x_BNHD);
  args.interleaved = interleaved;
  args.rotation = rotation.data_ptr<float>();
  args.x = x_BNHD.data_ptr(), args.out = x_BNHD.data_ptr();
  args.x_strides = args.out_strides = head_strides(x_BNHD);
  run(rotate, args, x_BNHD);
  mark_changed(x_BNHD);
}

// Adds a row's own key and value to what attention to the context gave.
void attend_own_in_place(const Tensor& out_RNHD, const Tensor& log_sum_BHL, const Tensor& q_RNHD,
                         const Tensor& own_k_RHD, const Tensor& own_v_RHD, double scale) {
  check_like("q", q_RNHD, out_RNHD);
  TORCH_CHECK_VALUE(out_RNHD.dim() == 4 && out_RNHD.is_contiguous(), "out has shape ",
                    out_RNHD.sizes(), " and strides ", out_RNHD.strides(),
                    "; it must be a dense [R, N, H, D]");
  const int64_t R = out_RNHD.size(0), N = out_RNHD.size(1), H = out_RNHD.size(2);
  const int64_t D = out_RNHD.size(3), B = log_sum_BHL.size(0);
  TORCH_CHECK_VALUE(
      B > 0 && R % B == 0 && log_sum_BHL.sizes() == at::IntArrayRef({B, H, R / B * N}),
      "log_sum has shape ", log_sum_BHL.sizes(), "; it must be [B, H, R / B * N] for ",
      out_RNHD.sizes());
  const Tensor q = dense("q", q_RNHD, out_RNHD);
  const Tensor k = own_k_RHD.to(out_RNHD.scalar_type()), v = own_v_RHD.to(out_RNHD.scalar_type());
  for (const Tensor& own : {k, v})
    TORCH_CHECK_VALUE(own.sizes() == at::IntArrayRef({R, H, D}) && own.stride(2) == 1 &&
                          own.strides() == k.strides(),
                      "an own key or value has shape ", own.sizes(), " and strides ", own.strides(),
                      "; both must be [R, H, D] alike for ", out_RNHD.sizes());
  const Tensor log_sum = log_sum_BHL.to(at::kFloat).contiguous();
  AttendOwnArgs args;
  args.R = R, args.N = N, args.H = H, args.D = D, args.draws = R / B;
  args.type = type_of("out", out_RNHD);
  args.scale = static_cast<float>(scale);
  args.q = q.data_ptr(), args.out = out_RNHD.data_ptr();
  args.own_k = k.data_ptr(), args.own_v = v.data_ptr();
  args.own_row = k.stride(0), args.own_head = k.stride(1);
  args.log_sum = log_sum.data_ptr<float>();
  run(attend_own, args, out_RNHD);
  mark_changed(out_RNHD);
}

}  // namespace

TORCH_LIBRARY_IMPL(syncflow, CUDA, m) {
  m.impl("rotate_", &rotate_in_place);
  m.impl("attend_own_", &attend_own_in_place);
}

}  // namespace syncflow::cuda
