// Attention along time on CUDA, forward: which kernel for which shape.
#include "temporal_attention_backward.cuh"

namespace syncflow::cuda {
namespace {

template <class T, int D>
void forward_head(const TemporalAttentionArgs& a, cudaStream_t stream) {
  auto* kernel = temporal_attention_kernel<T, D, 8, false>;
  if (a.T <= 8)
    kernel = temporal_attention_kernel<T, D, 1, true>;
  else if (a.T <= 16)
    kernel = temporal_attention_kernel<T, D, 2, true>;
  else if (a.T <= 32)
    kernel = temporal_attention_kernel<T, D, 4, (D <= 96)>;
  launch(kernel, ceil_div(a.B * a.S * a.H, kHeadWarps), kHeadWarps * kWarp, 0, stream, a);
}

template <class T>
void forward_any(const TemporalAttentionArgs& a, cudaStream_t stream) {
  const int64_t each = forward_shared(a.T, a.D) * sizeof(float);
  int64_t warps = kSharedDefault / each;
  warps = warps > 4 ? 4 : warps < 1 ? 1 : warps;
  auto* kernel = temporal_attention_any_kernel<T>;
  allow_shared(kernel, each);
  launch(kernel, ceil_div(a.B * a.S * a.H, warps), static_cast<int>(warps) * kWarp, warps * each,
         stream, a);
}

}  // namespace

bool temporal_attention_is_matrix(const TemporalAttentionArgs& a) {
  const bool plain = !a.transform.rotation || a.transform.interleaved;
  return a.type != DType::kFloat && a.T <= 64 && plain && aligned16(a.qkv) && aligned16(a.out) &&
         aligned16(a.grad_out) && aligned16(a.grad_qkv) && aligned16(a.transform.rotation) &&
         aligned16(a.transform.weight[0].data) && aligned16(a.transform.weight[1].data) &&
         with_head(a.D, [](auto) {});
}

cudaError_t temporal_attention_forward(const TemporalAttentionArgs& a, cudaStream_t stream) {
  if (a.B * a.T * a.S * a.H * a.D == 0) return cudaSuccess;
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    if constexpr (sizeof(T) == 2) {
      if (temporal_attention_is_matrix(a)) {
        with_head(a.D, [&](auto head) { forward_head<T, decltype(head)::D>(a, stream); });
        return;
      }
    }
    forward_any<T>(a, stream);
  });
  return cudaGetLastError();
}

}  // namespace syncflow::cuda
