// Bias and GELU on CUDA: vectors where rows allow them, and the grid.
#include "bias_gelu.cuh"

namespace syncflow::cuda {
namespace {

// Blocks of the backward pass: four on each of an H100's multiprocessors; see adaln.cu.
constexpr int64_t kBackwardBlocks = 4 * 132;

bool vectors_fit(const BiasGeluArgs& a) {
  return a.C % 8 == 0 && aligned16(a.x) && aligned16(a.out) && aligned16(a.bias.data) &&
         aligned16(a.grad_out) && aligned16(a.grad_x);
}

int64_t column_blocks(const BiasGeluArgs& a) {
  return ceil_div(a.C, kGeluThreads * (vectors_fit(a) ? 8 : 1));
}

}  // namespace

int64_t bias_gelu_chunks(const BiasGeluArgs& a) {
  // As many for vectors as without: the result's bits may not depend on alignment.
  const int64_t wanted = kBackwardBlocks / ceil_div(a.C, kGeluThreads * 8);
  const int64_t chunks = wanted < 1 ? 1 : wanted < a.N ? wanted : a.N;
  return chunks < 1 ? 1 : ceil_div(a.N, ceil_div(a.N, chunks));
}

cudaError_t bias_gelu_forward(const BiasGeluArgs& a, cudaStream_t stream) {
  if (a.N * a.C == 0) return cudaSuccess;
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    if (vectors_fit(a))
      launch(bias_gelu_kernel<T, 8>, ceil_div(a.N * a.C, kGeluThreads * 8), kGeluThreads, 0, stream,
             a);
    else
      launch(bias_gelu_kernel<T, 1>, ceil_div(a.N * a.C, kGeluThreads), kGeluThreads, 0, stream, a);
  });
  return cudaGetLastError();
}

cudaError_t bias_gelu_backward(const BiasGeluArgs& a, cudaStream_t stream) {
  if (a.N * a.C == 0) return cudaSuccess;
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    auto* kernel =
        vectors_fit(a) ? bias_gelu_backward_kernel<T, 8> : bias_gelu_backward_kernel<T, 1>;
    launch(kernel, column_blocks(a) * a.chunks, kGeluThreads, 0, stream, a);
    if (a.partial)
      launch(reduce_bias_kernel<T>, ceil_div(a.C, kGeluThreads), kGeluThreads, 0, stream, a);
  });
  return cudaGetLastError();
}

}  // namespace syncflow::cuda
