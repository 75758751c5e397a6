// What a kept plan is looked up by (syncflow/ops/native.py): every call of an operator asks for it,
// and in Python it took longer than some of the operators.
#include "plan_key.h"

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include <cstdint>

namespace syncflow {
namespace {

// Enough for six tensors of seven axes; a call with more is planned anew each time.
constexpr int kMost = 64;

// 0: no gradient is wanted, 1: one is, 2: autograd keeps no account at all.
int64_t wanted(PyObject* const* given, Py_ssize_t count) {
  if (!c10::GradMode::is_enabled()) return c10::InferenceMode::is_enabled() ? 2 : 0;
  for (Py_ssize_t i = 0; i < count; ++i)
    if (given[i] != Py_None && THPVariable_Unpack(given[i]).requires_grad()) return 1;
  return 0;
}

}  // namespace

PyObject* plan_key(PyObject*, PyObject* const* given, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  int64_t key[kMost];
  int used = 0;
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (given[i] == Py_None) {
      if (used + 1 > kMost) Py_RETURN_NONE;
      key[used++] = -1;
      continue;
    }
    if (!THPVariable_Check(given[i])) Py_RETURN_NONE;
    const at::Tensor& x = THPVariable_Unpack(given[i]);
    // Sizes of tensors that Python overrides may be symbols.
    if (x.key_set().has(c10::DispatchKey::Python) || used + 2 + x.dim() > kMost) Py_RETURN_NONE;
    const c10::Device device = x.device();
    key[used++] = static_cast<int64_t>(device.type()) << 32 |
                  static_cast<uint32_t>(static_cast<int32_t>(device.index()));
    key[used++] = static_cast<int64_t>(x.scalar_type()) << 32 | x.dim();
    for (const int64_t size : x.sizes()) key[used++] = size;
  }
  if (used + 1 > kMost) Py_RETURN_NONE;
  key[used++] = wanted(given, count);
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(key), used * sizeof(int64_t));
  END_HANDLE_TH_ERRORS
}

}  // namespace syncflow
