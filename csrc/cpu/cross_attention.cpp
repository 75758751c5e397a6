// Attention to another sequence on the CPU: checks, allocation and the split into tasks.
#include "cross_attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "../checks.h"
#include "../ops.h"

namespace syncflow::cpu {
namespace {

// Queries of a forward task: enough to be worth a copy of the keys.
constexpr int64_t kQueries = 128;

struct Inputs {
  const Tensor &q_RNHD, &k_BHMD, &v_BHMD;
  const OptionalTensor &own_k_RHOD, &own_v_RHOD, &term_BM, &rotation_NP2;
};

void check(const Inputs& in) {
  const Tensor &q = in.q_RNHD, &k = in.k_BHMD;
  check_dtype("q", q);
  TORCH_CHECK_VALUE(q.dim() == 4 && q.size(3) > 0, "q has shape ", q.sizes(),
                    "; it must be [R, N, H, D]");
  TORCH_CHECK_VALUE(k.dim() == 4, "k has shape ", k.sizes(), "; it must be [B, H, M, D]");
  const int64_t R = q.size(0), H = q.size(2), D = q.size(3), B = k.size(0), M = k.size(2);
  TORCH_CHECK_VALUE(B > 0 ? R % B == 0 : R == 0, "q has ", R, " rows and k ", B,
                    "; every row of k must serve as many of q");
  check_shape("k", k, q, {B, H, M, D});
  check_shape("v", in.v_BHMD, q, {B, H, M, D});
  TORCH_CHECK_VALUE(in.own_k_RHOD.has_value() == in.own_v_RHOD.has_value(),
                    "own_k and own_v must be given together");
  TORCH_CHECK_VALUE(M > 0 || in.own_k_RHOD, "k has shape ", k.sizes(), "; there is no key");
  if (in.own_k_RHOD) {
    check_shape("own_k", *in.own_k_RHOD, q, {R, H, 1, D});
    check_shape("own_v", *in.own_v_RHOD, q, {R, H, 1, D});
  }
  if (in.term_BM) check_shape("term", *in.term_BM, q, {B, M});
  if (in.rotation_NP2) {
    TORCH_CHECK_VALUE(D % 2 == 0, "q has shape ", q.sizes(),
                      "; its head dimension must be even for rotary pairs");
    check_shape("rotation", *in.rotation_NP2, q, {q.size(1), D / 2, 2});
  }
}

// One pass; holds the tensors that its arguments point into.
class Pass {
 public:
  CrossAttentionArgs args;

  explicit Pass(const Inputs& in) : is_double_(in.q_RNHD.scalar_type() == at::kDouble) {
    const Tensor &q = in.q_RNHD, &k = in.k_BHMD;
    args.B = k.size(0), args.N = q.size(1), args.M = k.size(2), args.H = q.size(2);
    args.K = args.B ? q.size(0) / args.B : 0;
    args.D = q.size(3);
    args.chunk = kQueries;
    args.q = tokens_first(q);
    args.k = heads_first(k);
    args.v = heads_first(in.v_BHMD);
    if (in.own_k_RHOD) {
      args.own_k = heads_first(*in.own_k_RHOD);
      args.own_v = heads_first(*in.own_v_RHOD);
    }
    args.transform.interleaved = false;
    if (in.term_BM) args.term = wide(*in.term_BM);
    if (in.rotation_NP2) args.transform.rotation = wide(*in.rotation_NP2);
  }

  // [R, N, H, D] and [B, H, M, D] as the kernel sees them; the last axis must be dense.
  Packed tokens_first(const Tensor& t) { return seen(t, 1, 2); }
  Packed heads_first(const Tensor& t) { return seen(t, 2, 1); }

  template <class Function>
  void run(int64_t tasks, Function function) const {
    at::parallel_for(0, args.N ? tasks : 0, 1,
                     [&](int64_t begin, int64_t end) { function(args, is_double_, begin, end); });
  }

 private:
  Packed seen(const Tensor& given, int token_axis, int head_axis) {
    const bool dense = given.stride(-1) == 1 || given.size(-1) == 1;
    const Tensor& t = held_.emplace_back(dense ? given : given.contiguous());
    return {static_cast<char*>(t.data_ptr()),
            t.stride(0),
            t.stride(token_axis),
            0,
            0,
            t.stride(head_axis),
            t.scalar_type()};
  }
  const void* wide(const Tensor& t) {
    return held_.emplace_back(t.to(is_double_ ? at::kDouble : at::kFloat).contiguous()).data_ptr();
  }

  bool is_double_;
  std::vector<Tensor> held_;
};

}  // namespace

Tensor cross_attention(const Tensor& q_RNHD, const Tensor& k_BHMD, const Tensor& v_BHMD,
                       const OptionalTensor& own_k_RHOD, const OptionalTensor& own_v_RHOD,
                       const OptionalTensor& term_BM, const OptionalTensor& rotation_NP2) {
  const Inputs in{q_RNHD, k_BHMD, v_BHMD, own_k_RHOD, own_v_RHOD, term_BM, rotation_NP2};
  check(in);
  const int64_t R = q_RNHD.size(0), N = q_RNHD.size(1), H = q_RNHD.size(2), D = q_RNHD.size(3);
  Pass pass(in);
  const Tensor out = at::empty({R, N, H * D}, q_RNHD.options());
  pass.args.out = pass.tokens_first(out.view({R, N, H, D}));
  pass.run(R * H * ((N + kQueries - 1) / kQueries), SYNCFLOW_PICK(cross_attention_forward));
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> cross_attention_backward(
    const Tensor& grad_RNC, const Tensor& q_RNHD, const Tensor& k_BHMD, const Tensor& v_BHMD,
    const OptionalTensor& own_k_RHOD, const OptionalTensor& own_v_RHOD,
    const OptionalTensor& term_BM, const OptionalTensor& rotation_NP2) {
  const Inputs in{q_RNHD, k_BHMD, v_BHMD, own_k_RHOD, own_v_RHOD, term_BM, rotation_NP2};
  check(in);
  const int64_t R = q_RNHD.size(0), N = q_RNHD.size(1), H = q_RNHD.size(2), D = q_RNHD.size(3);
  check_shape("grad", grad_RNC, q_RNHD, {R, N, H * D});
  Pass pass(in);
  const auto made = [](const OptionalTensor& like) {
    return like ? at::empty(like->sizes(), like->options()) : Tensor();
  };
  const Tensor grad_q = made(q_RNHD), grad_k = made(k_BHMD), grad_v = made(v_BHMD);
  Tensor grad_own_k = made(own_k_RHOD), grad_own_v = made(own_v_RHOD);
  pass.args.grad_out = pass.tokens_first(grad_RNC.unflatten(-1, {H, D}));
  pass.args.grad_q = pass.tokens_first(grad_q);
  pass.args.grad_k = pass.heads_first(grad_k);
  pass.args.grad_v = pass.heads_first(grad_v);
  if (own_k_RHOD) {
    pass.args.grad_own_k = pass.heads_first(grad_own_k);
    pass.args.grad_own_v = pass.heads_first(grad_own_v);
  } else {
    grad_own_k = at::empty({0}, q_RNHD.options());
    grad_own_v = at::empty({0}, q_RNHD.options());
  }
  pass.run(pass.args.B * H, SYNCFLOW_PICK(cross_attention_backward));
  return {grad_q, grad_k, grad_v, grad_own_k, grad_own_v};
}

}  // namespace syncflow::cpu
