// Guidance and the solver's update on the CPU: checks and the split into tasks.
#include "euler_cfg.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>

#include "../checks.h"
#include "../ops.h"

namespace syncflow::cpu {
namespace {

constexpr int64_t kPiece = 4096;

}  // namespace

Tensor euler_cfg(const Tensor& x, const Tensor& conditional, const OptionalTensor& null,
                 double guidance, double h) {
  check_dtype("x", x);
  check_like("conditional", conditional, x);
  if (null) check_like("null", *null, x);
  const Tensor from = x.contiguous(), c = conditional.contiguous();
  const Tensor n = null ? null->contiguous() : Tensor();
  Tensor out = at::empty_like(from);
  const auto rows = [](const Tensor& t) {
    return Rows{static_cast<char*>(t.data_ptr()), kPiece, t.scalar_type()};
  };
  EulerCfgArgs args{x.numel(), kPiece,   rows(from), rows(c), null ? rows(n) : Rows{},
                    rows(out), guidance, h};
  at::parallel_for(0, (args.total + kPiece - 1) / kPiece, 4, [&](int64_t begin, int64_t end) {
    SYNCFLOW_PICK(euler_cfg_forward)(args, x.scalar_type() == at::kDouble, begin, end);
  });
  return out;
}

}  // namespace syncflow::cpu
