// RMSNorm and rotation of queries and keys on CUDA: which kernel for which shape.
#include "qk_norm_rope.cuh"

namespace syncflow::cuda {
namespace {

// Warps of the backward pass, a multiple of 3 parts and of a block's warps: about 16 on each of an
// H100's multiprocessors, and a constant, so that sums depend on the shape alone.
constexpr int64_t kMostSlots = 24 * 88;

bool whole_vectors(const PackedStrides& s) {
  return s.b % 8 == 0 && s.t % 8 == 0 && s.part % 8 == 0 && s.h % 8 == 0;
}

bool is_tiled(const QkNormRopeArgs& a) {
  return a.type != DType::kFloat && with_head(a.D, [](auto) {}) &&
         (!a.transform.rotation || a.transform.interleaved) && aligned16(a.transform.rotation) &&
         aligned16(a.transform.weight[0].data) && aligned16(a.transform.weight[1].data) &&
         aligned16(a.qkv) && aligned16(a.out) && aligned16(a.grad_out) && aligned16(a.grad_qkv) &&
         whole_vectors(a.qkv_strides) && whole_vectors(a.out_strides) &&
         whole_vectors(a.grad_strides);
}

template <class T>
void forward(const QkNormRopeArgs& a, cudaStream_t stream) {
  auto* kernel = qk_norm_rope_any_kernel<T>;
  int64_t items = a.B * a.T * a.parts * a.H;
  if constexpr (sizeof(T) == 2) {
    if (is_tiled(a)) {
      items = a.B * a.T * a.parts * ((a.H + 7) / 8);
      with_head(a.D, [&](auto head) { kernel = qk_norm_rope_kernel<T, decltype(head)::D>; });
    }
  }
  launch(kernel, ceil_div(items, kTokenWarps), kTokenWarps * kWarp, 0, stream, a);
}

template <class T>
void backward(const QkNormRopeArgs& a, cudaStream_t stream) {
  auto* kernel = qk_norm_rope_backward_any_kernel<T>;
  if constexpr (sizeof(T) == 2) {
    if (is_tiled(a))
      with_head(a.D,
                [&](auto head) { kernel = qk_norm_rope_backward_kernel<T, decltype(head)::D>; });
  }
  launch(kernel, a.transform.slots / kTokenWarps, kTokenWarps * kWarp, 0, stream, a);
  launch(reduce_gains_kernel<T>, 2 * a.D, 256, 0, stream, a.transform, static_cast<int>(a.D));
}

}  // namespace

int64_t qk_norm_rope_slots(const QkNormRopeArgs& a) {
  const int64_t wanted = ceil_div(3 * a.B * a.T * a.H, 24) * 24;
  return wanted < kMostSlots ? wanted : kMostSlots;
}

cudaError_t qk_norm_rope_forward(const QkNormRopeArgs& a, cudaStream_t stream) {
  if (a.B * a.T * a.H * a.D == 0) return cudaSuccess;
  with_type(a.type, [&](auto type) { forward<decltype(type)>(a, stream); });
  return cudaGetLastError();
}

cudaError_t qk_norm_rope_backward(const QkNormRopeArgs& a, cudaStream_t stream) {
  if (a.B * a.T * a.H * a.D == 0) return cudaSuccess;
  with_type(a.type, [&](auto type) { backward<decltype(type)>(a, stream); });
  return cudaGetLastError();
}

}  // namespace syncflow::cuda
