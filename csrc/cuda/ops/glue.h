// Tensors to what the launchers of ../args.h take.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <optional>
#include <tuple>

#include "../../checks.h"
#include "../args.h"

namespace syncflow::cuda {

inline DType type_of(const char* name, const Tensor& t) {
  const auto type = t.scalar_type();
  TORCH_CHECK_VALUE(type == at::kFloat || type == at::kBFloat16 || type == at::kHalf, name, " is ",
                    type, "; on CUDA it must be float32, bfloat16 or float16");
  return type == at::kFloat ? DType::kFloat : type == at::kHalf ? DType::kHalf : DType::kBFloat16;
}

inline void check_device(const char* name, const Tensor& t, const Tensor& x) {
  TORCH_CHECK_VALUE(t.device() == x.device(), name, " is on ", t.device(), "; it must be on ",
                    x.device());
}

// A token tensor as the kernels read it: x's type, dense.
inline Tensor dense(const char* name, const Tensor& t, const Tensor& x) {
  check_device(name, t, x);
  return t.to(x.scalar_type()).contiguous();
}

// A modulation or gain: x's type or float32, its last axis dense. Owns what the rows point to.
struct Small {
  Tensor tensor;
  SmallRows rows;

  Small() = default;
  Small(const char* name, const Tensor& t, const Tensor& x) : tensor(t) {
    check_device(name, t, x);
    if (t.scalar_type() != x.scalar_type()) tensor = tensor.to(at::kFloat);
    if (tensor.dim() && tensor.stride(-1) != 1) tensor = tensor.contiguous();
    rows = {tensor.data_ptr(), tensor.dim() > 1 ? tensor.stride(0) : 0,
            tensor.scalar_type() == at::kFloat, 0};
  }
  Small(const char* name, const OptionalTensor& t, const Tensor& x)
      : Small(t ? Small(name, *t, x) : Small()) {}
};

// A gradient of a small operand: computed in x's type or float32, then given the operand's own.
struct SmallGrad {
  Tensor tensor;
  at::ScalarType wanted;

  SmallGrad(at::IntArrayRef sizes, const Tensor& like, const Tensor& x)
      : wanted(like.scalar_type()) {
    tensor = at::empty(sizes, x.options().dtype(wanted == x.scalar_type() ? wanted : at::kFloat));
  }
  void* data() const { return tensor.data_ptr(); }
  int32_t is_float() const { return tensor.scalar_type() == at::kFloat; }
  Tensor result() const { return tensor.to(wanted); }
};

inline Tensor scratch(at::IntArrayRef sizes, const Tensor& x) {
  return at::empty(sizes, x.options().dtype(at::kFloat));
}

// Runs a launcher on x's device and that device's current stream.
template <class Args>
void run(cudaError_t (*launcher)(const Args&, cudaStream_t), const Args& args, const Tensor& x) {
  const c10::cuda::CUDAGuard guard(x.device());
  C10_CUDA_CHECK(launcher(args, c10::cuda::getCurrentCUDAStream(x.device().index())));
}

}  // namespace syncflow::cuda
