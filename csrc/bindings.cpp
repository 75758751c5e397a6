// The table of contents: every operator once. A row is bound with pybind11 (syncflow._C.<name>, the
// bare CPU function) and registered with the dispatcher (torch.ops.syncflow.<name>), from where
// autograd, torch.compile and opcheck find it.
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>

#include "ops.h"
#include "plan_key.h"

namespace {

template <class Row>
void each_op(Row&& row) {
  using namespace syncflow;

  // LN(x) * (1 + scale) + shift
  row("adaln", "(Tensor x_GSC, Tensor shift_GC, Tensor scale_GC, float eps) -> Tensor",
      &cpu::adaln);
  row("adaln_backward",
      "(Tensor grad_GSC, Tensor x_GSC, Tensor shift_GC, Tensor scale_GC, float eps) -> (Tensor, "
      "Tensor, Tensor)",
      &cpu::adaln_backward);

  // x + gate * y
  row("gate_residual", "(Tensor x_GSC, Tensor y_GSC, Tensor gate_GC) -> Tensor",
      &cpu::gate_residual);
  row("gate_residual_backward",
      "(Tensor grad_GSC, Tensor y_GSC, Tensor gate_GC) -> (Tensor, Tensor)",
      &cpu::gate_residual_backward);

  // sum = x + gate * y;  sum, LN(sum) * (1 + scale) + shift
  row("gate_residual_adaln",
      "(Tensor x_GSC, Tensor y_GSC, Tensor? gate_GC, Tensor shift_GC, Tensor scale_GC, float eps) "
      "-> (Tensor, Tensor)",
      &cpu::gate_residual_adaln);
  row("gate_residual_adaln_backward",
      "(Tensor grad_sum_GSC, Tensor grad_out_GSC, Tensor sum_GSC, Tensor y_GSC, Tensor? gate_GC, "
      "Tensor shift_GC, "
      "Tensor scale_GC, float eps) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
      &cpu::gate_residual_adaln_backward);

  // x + LN(y) * weight + bias
  row("residual_layernorm",
      "(Tensor x_GSC, Tensor y_GSC, Tensor weight_C, Tensor bias_C, float eps) -> Tensor",
      &cpu::residual_layernorm);
  row("residual_layernorm_backward",
      "(Tensor grad_GSC, Tensor y_GSC, Tensor weight_C, Tensor bias_C, float eps) -> (Tensor, "
      "Tensor, Tensor)",
      &cpu::residual_layernorm_backward);

  // softmax(q k^T / sqrt(D)) v along T, of q and k normed per head and rotated
  row("temporal_attention",
      "(Tensor qkv_BTS3HD, Tensor? q_weight_D, Tensor? k_weight_D, Tensor? rotation_TP2, bool "
      "interleaved, float eps) -> Tensor",
      &cpu::temporal_attention);
  row("temporal_attention_backward",
      "(Tensor grad_BTSC, Tensor qkv_BTS3HD, Tensor? q_weight_D, Tensor? k_weight_D, Tensor? "
      "rotation_TP2, bool interleaved, float eps) -> (Tensor, Tensor, Tensor)",
      &cpu::temporal_attention_backward);

  // softmax(rotated q k^T / sqrt(D) + term) v over the keys of a context and one of the row's own
  row("cross_attention",
      "(Tensor q_RNHD, Tensor k_BHMD, Tensor v_BHMD, Tensor? own_k_RHOD, Tensor? own_v_RHOD, "
      "Tensor? term_BM, Tensor? rotation_NP2) -> Tensor",
      &cpu::cross_attention);
  row("cross_attention_backward",
      "(Tensor grad_RNC, Tensor q_RNHD, Tensor k_BHMD, Tensor v_BHMD, Tensor? own_k_RHOD, Tensor? "
      "own_v_RHOD, Tensor? term_BM, Tensor? rotation_NP2) -> (Tensor, Tensor, Tensor, Tensor, "
      "Tensor)",
      &cpu::cross_attention_backward);

  // q and k normed per head and rotated; v as it is
  row("qk_norm_rope",
      "(Tensor qkv_BN3HD, Tensor? q_weight_D, Tensor? k_weight_D, Tensor? rotation_NP2, bool "
      "interleaved, float eps) -> Tensor",
      &cpu::qk_norm_rope);
  row("qk_norm_rope_",
      "(Tensor(a!) qkv_BN3HD, Tensor? q_weight_D, Tensor? k_weight_D, Tensor? rotation_NP2, bool "
      "interleaved, float eps) -> ()",
      &cpu::qk_norm_rope_);
  row("qk_norm_rope_backward",
      "(Tensor grad_BN3HD, Tensor qkv_BN3HD, Tensor? q_weight_D, Tensor? k_weight_D, Tensor? "
      "rotation_NP2, bool interleaved, float eps) -> (Tensor, Tensor, Tensor)",
      &cpu::qk_norm_rope_backward);

  // GELU(x + bias), tanh form
  row("bias_gelu", "(Tensor x_NC, Tensor? bias_C) -> Tensor", &cpu::bias_gelu);
  row("bias_gelu_", "(Tensor(a!) x_NC, Tensor? bias_C) -> ()", &cpu::bias_gelu_);
  row("bias_gelu_backward", "(Tensor grad_NC, Tensor x_NC, Tensor? bias_C) -> (Tensor, Tensor)",
      &cpu::bias_gelu_backward);

  // patches of x times weight, + bias + positions; and tokens back in their places
  row("patchify3d",
      "(Tensor x_BZTHW, Tensor weight_CZpqr, Tensor? bias_C, Tensor? positions_SC) -> Tensor",
      &cpu::patchify3d);
  row("unpatchify3d", "(Tensor tokens_BTSK, int[3] patch, int channels, int[3] size) -> Tensor",
      &cpu::unpatchify3d);

  // x + h (null + guidance (conditional - null))
  row("euler_cfg",
      "(Tensor x, Tensor conditional, Tensor? null, float guidance, float h) -> Tensor",
      &cpu::euler_cfg);
}

}  // namespace

// What only a GPU has kernels for, around a library's attention, norm or convolution: declared
// everywhere, so that tracing and counting know them, and registered in csrc/cuda/ops.
constexpr const char* kGpuOnly[] = {
    // the pairs of x's heads turned where they lie
    "rotate_(Tensor(a!) x_BNHD, Tensor rotation_NP2, bool interleaved) -> ()",
    // a row's own key and value beside those that it has attended to
    "attend_own_(Tensor(a!) out_RNHD, Tensor log_sum_BHL, Tensor q_RNHD, Tensor own_k_RHD, Tensor "
    "own_v_RHD, float scale) -> ()",
    // LN(x + y) * weight + bias
    "layernorm_of_sum(Tensor x_GSC, Tensor y_GSC, Tensor weight_C, Tensor bias_C, float eps) -> "
    "Tensor",
    // group norm of x + add, then SiLU, of channels-last activations
    "group_norm_silu(Tensor x_NLC, Tensor? add_NLC, Tensor? before_C, Tensor weight_C, Tensor "
    "bias_C, "
    "int groups, float eps, bool silu, bool keep, int front, int width) -> (Tensor, Tensor)",
};

TORCH_LIBRARY(syncflow, m) {
  for (const char* signature : kGpuOnly) m.def(signature);
  each_op([&](const char* name, const char* signature, auto) {
    m.def((std::string(name) + signature).c_str());
  });
}

TORCH_LIBRARY_IMPL(syncflow, CPU, m) {
  each_op([&](const char* name, const char*, auto function) { m.impl(name, function); });
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  each_op([&](const char* name, const char* signature, auto function) {
    m.def(name, function, signature);
  });
  // Not by pybind11, whose reading of arguments takes longer than the function.
  static PyMethodDef plan_key = {
      "plan_key", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&syncflow::plan_key)),
      METH_FASTCALL, "bytes that name a call of an operator, by its tensors"};
  m.add_object("plan_key", PyCFunction_New(&plan_key, nullptr));
}
