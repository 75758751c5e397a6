// Attention along time on CUDA, backward: which kernel for which shape.
#include <cstdio>

#include "temporal_attention_backward.cuh"

namespace syncflow::cuda {
namespace {

constexpr int64_t kMostWarps = 4;

int64_t tiles(const TemporalAttentionArgs& a) {
  return a.T <= 8 ? 1 : a.T <= 16 ? 2 : a.T <= 32 ? 4 : 8;
}

// Warps of the backward pass: as many on each of an H100's 132 multiprocessors as their registers
// allow. From the shape alone, so that the order of summation is too.
int64_t most_slots(const TemporalAttentionArgs& a) {
  return (a.T <= 8 && a.D <= 72 ? 12 : 8) * 132;
}

// Two tiles of larger heads no longer fit into registers.
constexpr bool keeps_shared(int64_t tiles, int64_t D) {
  return tiles > 2 || (tiles == 2 && D > 72);
}

// Bytes of shared memory of one warp.
int64_t warp_shared(const TemporalAttentionArgs& a) {
  if (!temporal_attention_is_matrix(a))
    return backward_shared(a.T, a.D) * static_cast<int64_t>(sizeof(float));
  const int64_t n = tiles(a);
  return !keeps_shared(n, a.D) ? 0 : (kParts * n * (a.D / 8) + 2 * n * n) * kWarp * 4;
}

int64_t fitting_warps(const TemporalAttentionArgs& a, int64_t limit) {
  const int64_t each = warp_shared(a);
  const int64_t fit = each ? limit / each : kMostWarps;
  return fit > kMostWarps ? kMostWarps : fit < 1 ? 1 : fit;
}

// As many as the device has room for; which slot a warp has does not depend on their number.
int64_t warps_per_block(const TemporalAttentionArgs& a) {
  const bool asks = warp_shared(a) * kMostWarps > kSharedDefault;
  int64_t warps = fitting_warps(a, asks ? shared_limit() : kSharedDefault);
  while (a.transform.slots % warps) --warps;
  return warps;
}

template <class Kernel>
void run(Kernel* kernel, const TemporalAttentionArgs& a, cudaStream_t stream) {
  const int64_t warps = warps_per_block(a), shared = warps * warp_shared(a);
  allow_shared(kernel, shared);
  launch(kernel, a.transform.slots / warps, static_cast<int>(warps) * kWarp, shared, stream, a);
}

template <class T, int D>
void backward_head(const TemporalAttentionArgs& a, cudaStream_t stream) {
  switch (tiles(a)) {
    case 1:
      return run(temporal_attention_backward_kernel<T, D, 1, keeps_shared(1, D)>, a, stream);
    case 2:
      return run(temporal_attention_backward_kernel<T, D, 2, keeps_shared(2, D)>, a, stream);
    case 4:
      return run(temporal_attention_backward_kernel<T, D, 4, keeps_shared(4, D)>, a, stream);
    default:
      return run(temporal_attention_backward_kernel<T, D, 8, keeps_shared(8, D)>, a, stream);
  }
}

}  // namespace

const char* temporal_attention_refusal(const TemporalAttentionArgs& a) {
  if (a.D > kMostHead) return "head dimensions above 256 have no CUDA kernel";
  // The backward pass needs more than the forward: what can be computed can be trained.
  const int64_t needed = warp_shared(a);
  if (needed <= kSharedDefault) return nullptr;
  const int64_t limit = shared_limit();
  if (needed <= limit) return nullptr;
  static thread_local char text[200];
  snprintf(
      text, sizeof text,
      "so many frames of so large heads need %lld KB of shared memory, and a block has at most "
      "%lld KB on this device (see ops.reference_ops)",
      static_cast<long long>(ceil_div(needed, 1024)), static_cast<long long>(limit / 1024));
  return text;
}

int64_t temporal_attention_slots(const TemporalAttentionArgs& a) {
  const int64_t items = a.B * a.S * a.H, warps = fitting_warps(a, kSharedPlanned);
  const int64_t slots = items < most_slots(a) ? items : most_slots(a);
  return ceil_div(slots, warps) * warps;
}

cudaError_t temporal_attention_backward(const TemporalAttentionArgs& a, cudaStream_t stream) {
  if (a.B * a.T * a.S * a.H * a.D == 0) return cudaSuccess;
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    bool done = false;
    if constexpr (sizeof(T) == 2) {
      done = temporal_attention_is_matrix(a);
      if (done) with_head(a.D, [&](auto head) { backward_head<T, decltype(head)::D>(a, stream); });
    }
    if (!done) run(temporal_attention_backward_any_kernel<T>, a, stream);
    if (a.transform.weight[0].data || a.transform.weight[1].data)
      launch(reduce_gains_kernel<T>, 2 * a.D, 256, 0, stream, a.transform, static_cast<int>(a.D));
  });
  return cudaGetLastError();
}

}  // namespace syncflow::cuda
