// LayerNorm and modulation on CUDA: which kernel for which shape, and its grid.
#include "adaln_backward.cuh"

namespace syncflow::cuda {
namespace {

// Blocks of the backward pass: one wave of an H100's 132 multiprocessors. A constant, so that the
// order of summation, and with it every bit of the result, depends on the shape alone.
constexpr int64_t kBackwardBlocks = 132;
constexpr int64_t kRow1 = kWarp * kRowVector;

bool rows_fit(const SmallRows& r) { return !r.data || (aligned16(r.data) && r.stride % 8 == 0); }

bool vectors_fit(const AdalnArgs& a) {
  bool fit = a.channels % kRowVector == 0;
  for (const void* p : {a.x, a.y, a.grad_out, a.grad_sum, static_cast<const void*>(a.out),
                        static_cast<const void*>(a.sum), static_cast<const void*>(a.grad_x),
                        static_cast<const void*>(a.grad_y)})
    fit = fit && aligned16(p);
  return fit && rows_fit(a.gate) && rows_fit(a.shift) && rows_fit(a.scale);
}

bool backward_is_fast(const AdalnArgs& a) { return vectors_fit(a) && a.channels <= 5 * kRow1; }

template <class T, Norm NORM>
void forward(const AdalnArgs& a, cudaStream_t stream) {
  auto* kernel = adaln_forward_any_kernel<T, NORM>;
  if (vectors_fit(a)) {
    if (a.channels <= kRow1)
      kernel = adaln_forward_kernel<T, 1, NORM>;
    else if (a.channels <= 2 * kRow1)
      kernel = adaln_forward_kernel<T, 2, NORM>;
    else if (a.channels <= 5 * kRow1)
      kernel = adaln_forward_kernel<T, 5, NORM>;
    else if (a.channels <= 8 * kRow1)
      kernel = adaln_forward_kernel<T, 8, NORM>;
  }
  launch(kernel, ceil_div(a.groups * a.tokens, kForwardWarps), kForwardWarps * kWarp, 0, stream, a);
}

template <class T, bool RESIDUAL>
void backward(const AdalnArgs& a, cudaStream_t stream) {
  const int64_t blocks = a.groups * a.chunks;
  if (backward_is_fast(a)) {
    auto* kernel = adaln_backward_kernel<T, 5, RESIDUAL>;
    if (a.channels <= kRow1)
      kernel = adaln_backward_kernel<T, 1, RESIDUAL>;
    else if (a.channels <= 2 * kRow1)
      kernel = adaln_backward_kernel<T, 2, RESIDUAL>;
    launch(kernel, blocks, kBackwardWarps * kWarp, 0, stream, a);
    return;
  }
  launch(adaln_backward_rows_kernel<T, RESIDUAL>, ceil_div(a.groups * a.tokens, kForwardWarps),
         kForwardWarps * kWarp, 0, stream, a);
  launch(adaln_backward_columns_kernel<T, RESIDUAL>, blocks, kBackwardWarps * kWarp, 0, stream, a);
}

}  // namespace

int64_t adaln_chunks(int64_t groups, int64_t tokens) {
  const int64_t wanted = groups ? kBackwardBlocks / groups : 1;
  const int64_t most = ceil_div(tokens, kBackwardWarps);
  const int64_t chunks = wanted < most ? wanted : most;
  if (chunks <= 1) return 1;
  // Equal chunks, none of them empty.
  return ceil_div(tokens, ceil_div(tokens, chunks));
}

bool adaln_keeps_sum(const AdalnArgs& a) { return vectors_fit(a) && a.channels <= 8 * kRow1; }

bool adaln_needs_stats(const AdalnArgs& a) { return a.grad_out && !backward_is_fast(a); }

cudaError_t adaln_forward(const AdalnArgs& a, cudaStream_t stream) {
  if (a.groups * a.tokens * a.channels == 0) return cudaSuccess;
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    if (!a.out) {
      auto* kernel = vectors_fit(a) ? gate_residual_kernel<T, 8> : gate_residual_kernel<T, 1>;
      launch(kernel, ceil_div(a.groups * a.tokens, kForwardWarps), kForwardWarps * kWarp, 0, stream,
             a);
    } else if (a.post_norm) {
      forward<T, Norm::kPost>(a, stream);
    } else if (a.y) {
      forward<T, Norm::kPreResidual>(a, stream);
    } else {
      forward<T, Norm::kPre>(a, stream);
    }
  });
  return cudaGetLastError();
}

cudaError_t adaln_backward(const AdalnArgs& a, cudaStream_t stream) {
  if (a.groups * a.channels == 0) return cudaSuccess;
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    if (!a.grad_out) {
      auto* kernel = vectors_fit(a) ? gate_residual_backward_kernel<T, 8>
                                    : gate_residual_backward_kernel<T, 1>;
      launch(kernel, a.groups * a.chunks, kBackwardWarps * kWarp, 0, stream, a);
    } else if (a.grad_sum) {
      backward<T, true>(a, stream);
    } else {
      backward<T, false>(a, stream);
    }
    launch(reduce_partials_kernel<T>, ceil_div(a.groups * 3 * a.channels, 256), 256, 0, stream, a);
  });
  return cudaGetLastError();
}

}  // namespace syncflow::cuda
