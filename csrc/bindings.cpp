// The table of contents: every operator once. A row is bound with pybind11 (syncflow._C.<name>, the
// bare CPU function) and registered with the dispatcher (torch.ops.syncflow.<name>), from where
// autograd, torch.compile and opcheck find it.
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>

#include "ops.h"

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
}

}  // namespace

TORCH_LIBRARY(syncflow, m) {
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
}
