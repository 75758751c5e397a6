// What the kernels are given: raw pointers and sizes, so that neither nvcc nor the emulation sees
// a tensor. Token tensors are contiguous; strides are in elements.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#ifdef __CUDACC__
#define SYNCFLOW_HOST_DEVICE __host__ __device__
#else
#define SYNCFLOW_HOST_DEVICE
#endif

namespace syncflow::cuda {

enum class DType : int32_t { kFloat = 0, kBFloat16 = 1, kHalf = 2 };

// Rows of a small operand, `stride` elements apart, in the token type or in float32. data ==
// nullptr: absent.
struct SmallRows {
  const void* data = nullptr;
  int64_t stride = 0;
  int32_t is_float = 0;
  int32_t unused = 0;
};

// One pass over [groups, tokens, channels]; see syncflow/ops/adaln.py for the mathematics.
//
// Forward: sum = x + gate * y where y is given (gate absent: 1), then out = LN(sum) * (1 + scale)
// + shift where out is asked for; post_norm: out = x + LN(y) * scale + shift. sum may be absent where
// adaln_keeps_sum() says so.
// Backward: x is the tensor that was normed (post_norm: y's role is x's here).
struct AdalnArgs {
  int64_t groups = 0, tokens = 0, channels = 0;
  int64_t chunks = 0;  // backward: parts into which a group's tokens are cut, from adaln_chunks()
  float eps = 0;
  DType type = DType::kFloat;
  int32_t post_norm = 0;
  int32_t plain_gain = 0;  // forward: the gain is scale, not 1 + scale
  const void *x = nullptr, *y = nullptr;
  void *out = nullptr, *sum = nullptr;
  SmallRows gate, shift, scale;
  const void *grad_out = nullptr, *grad_sum = nullptr;
  void *grad_x = nullptr, *grad_y = nullptr;
  float* partial = nullptr;  // backward scratch: [groups, chunks, 3, channels]
  float* stats = nullptr;    // backward scratch: [groups * tokens, 2], where adaln_needs_stats()
  void *grad_gate = nullptr, *grad_shift = nullptr, *grad_scale = nullptr;  // [groups, channels]
  int32_t grad_gate_is_float = 0, grad_shift_is_float = 0, grad_scale_is_float = 0;
  int32_t unused2 = 0;
};

int64_t adaln_chunks(int64_t groups, int64_t tokens);
bool adaln_needs_stats(const AdalnArgs& args);
bool adaln_keeps_sum(const AdalnArgs& args);
cudaError_t adaln_forward(const AdalnArgs& args, cudaStream_t stream);
cudaError_t adaln_backward(const AdalnArgs& args, cudaStream_t stream);

// What happens to a head's row of queries or keys: RMSNorm with a gain, then rotation. data ==
// nullptr: that step is left out.
struct HeadTransform {
  SmallRows weight[2];              // gains of q and k, [D]
  const float* rotation = nullptr;  // [T, D / 2, 2] of (cos, sin)
  int32_t interleaved = 1;          // pairs (2i, 2i + 1), else (i, i + D / 2)
  float eps = 0;
  // Backward: sums over rows, [slots, 2, D], then the gradients of the gains.
  float* partial = nullptr;
  int64_t slots = 0;
  void* grad_weight[2] = {nullptr, nullptr};
  int32_t grad_weight_is_float[2] = {0, 0};

  // An index known only at run time would have the whole structure copied into local memory.
  SYNCFLOW_HOST_DEVICE SmallRows gain(int which) const { return which ? weight[1] : weight[0]; }
};

// Softmax attention along T of a packed projection [B, T, S, 3, H, D]; out [B, T, S, H, D].
struct TemporalAttentionArgs {
  int64_t B = 0, T = 0, S = 0, H = 0, D = 0;
  DType type = DType::kFloat;
  float scale = 0;  // of the scores: 1 / sqrt(D)
  HeadTransform transform;
  const void* qkv = nullptr;
  void* out = nullptr;
  const void* grad_out = nullptr;
  void* grad_qkv = nullptr;
};

// Why these sizes have no kernel on the current device, or nullptr; good until the thread's next call.
const char* temporal_attention_refusal(const TemporalAttentionArgs& args);
bool temporal_attention_is_matrix(const TemporalAttentionArgs& args);
int64_t temporal_attention_slots(const TemporalAttentionArgs& args);
cudaError_t temporal_attention_forward(const TemporalAttentionArgs& args, cudaStream_t stream);
cudaError_t temporal_attention_backward(const TemporalAttentionArgs& args, cudaStream_t stream);

// Strides of a packed tensor, in elements; its last axis is dense.
struct PackedStrides {
  int64_t b = 0, t = 0, part = 0, h = 0;
};

// Norm and rotation of q and k alone, on [B, T, 3, H, D]; out may be qkv itself.
struct QkNormRopeArgs {
  int64_t B = 0, T = 0, H = 0, D = 0;
  int64_t parts = 3;  // forward: 2 leaves the values alone, as in place; 3 copies them
  DType type = DType::kFloat;
  int32_t unused = 0;
  HeadTransform transform;
  const void* qkv = nullptr;
  void* out = nullptr;
  const void* grad_out = nullptr;
  void* grad_qkv = nullptr;
  PackedStrides qkv_strides, out_strides, grad_strides;  // of qkv, out or grad_qkv, grad_out
};

int64_t qk_norm_rope_slots(const QkNormRopeArgs& args);
cudaError_t qk_norm_rope_forward(const QkNormRopeArgs& args, cudaStream_t stream);
cudaError_t qk_norm_rope_backward(const QkNormRopeArgs& args, cudaStream_t stream);

// GELU(x + bias), [N, C].
struct BiasGeluArgs {
  int64_t N = 0, C = 0, chunks = 0;  // chunks: backward, from bias_gelu_chunks()
  DType type = DType::kFloat;
  int32_t grad_bias_is_float = 0;
  SmallRows bias;
  const void* x = nullptr;
  void* out = nullptr;
  const void* grad_out = nullptr;
  void* grad_x = nullptr;
  float* partial = nullptr;  // backward scratch where there is a bias: [chunks, C]
  void* grad_bias = nullptr;
};

int64_t bias_gelu_chunks(const BiasGeluArgs& args);
cudaError_t bias_gelu_forward(const BiasGeluArgs& args, cudaStream_t stream);
cudaError_t bias_gelu_backward(const BiasGeluArgs& args, cudaStream_t stream);

// Patches [p, q, r] of latents [B, Z, T, H, W] to tokens [B, grid_t, grid_h * grid_w, C], and back:
// then x holds tokens of `type`, of p q r `stored` numbers each, and out float32 latents.
struct Patchify3dArgs {
  int64_t B = 0, Z = 0, T = 0, H = 0, W = 0, C = 0, stored = 0;
  int64_t grid_t = 0, grid_h = 0, grid_w = 0;
  int32_t p = 1, q = 1, r = 1;
  int32_t x_is_float = 0;
  DType type = DType::kFloat;  // of weight and tokens
  int32_t unused = 0;
  const void *x = nullptr, *weight = nullptr;  // [B, Z, T, H, W], [C, Z, p, q, r]
  void* out = nullptr;
  SmallRows bias, positions;  // [C], [S, C]
};

cudaError_t patchify3d_forward(const Patchify3dArgs& args, cudaStream_t stream);
cudaError_t unpatchify3d_forward(const Patchify3dArgs& args, cudaStream_t stream);

// x + h (null + guidance (conditional - null)).
struct EulerCfgArgs {
  int64_t total = 0;
  DType type = DType::kFloat;  // of x and out
  float guidance = 1, h = 0;
  int32_t unused = 0;
  const void* x = nullptr;
  SmallRows conditional, null;
  void* out = nullptr;
};

cudaError_t euler_cfg_forward(const EulerCfgArgs& args, cudaStream_t stream);

// Strides of heads [B, N, H, D], in elements; the last axis is dense.
struct HeadStrides {
  int64_t b = 0, n = 0, h = 0;
};

// Rotary positions of heads; out may be x itself.
struct RotateArgs {
  int64_t B = 0, N = 0, H = 0, D = 0;
  DType type = DType::kFloat;
  int32_t interleaved = 1;          // pairs (2i, 2i + 1), else (i, i + D / 2)
  const float* rotation = nullptr;  // [N, D / 2, 2] of (cos, sin)
  const void* x = nullptr;
  void* out = nullptr;
  HeadStrides x_strides, out_strides;
};

cudaError_t rotate(const RotateArgs& args, cudaStream_t stream);

// A row's own key beside a context's; see syncflow/ops/cross_attention.py.
struct AttendOwnArgs {
  int64_t R = 0, N = 0, H = 0, D = 0, draws = 1;  // rows, queries, ...; rows of one context
  DType type = DType::kFloat;
  float scale = 0;
  const void* q = nullptr;                        // [R, N, H, D]
  const void *own_k = nullptr, *own_v = nullptr;  // rows own_row, heads own_head apart
  int64_t own_row = 0, own_head = 0;
  const float* log_sum = nullptr;  // [R / draws, H, draws * N]
  void* out = nullptr;             // [R, N, H, D], changed in place
};

cudaError_t attend_own(const AttendOwnArgs& args, cudaStream_t stream);

// Group normalisation of channels-last activations; see syncflow/ops/group_norm.py. z = x + add +
// before (either may be absent) is normed in groups of C / groups channels over a sample's L places;
// out has `front` places of zeros before every sample's.
struct GroupNormArgs {
  int64_t N = 0, L = 0, C = 0, groups = 1;
  int64_t chunks = 0;  // parts of a sample, from group_norm_chunks()
  int64_t front = 0;
  // x holds the four phases of a picture of `width` (even) columns: [N, L / width / 2 + 1, width / 2
  // + 1, 2, 2, C]. 0: it lies as z does. With phases the sum is stored.
  int64_t width = 0;
  DType type = DType::kFloat;
  float eps = 0;
  int32_t silu = 0, unused = 0;
  const void *x = nullptr, *add = nullptr;  // add: the sum is stored
  void *sum = nullptr, *out = nullptr;      // [N, L, C], [N, front + L, C]
  SmallRows before, weight, bias;           // [C]
  float* partial = nullptr;       // scratch [N, chunks, groups, 2]: mean, sum of squares about it
  float* coefficients = nullptr;  // scratch [N, 2, C]: out = z * first + second, then SiLU
};

constexpr int64_t kGroupNormChannels = 4096;  // at most
int64_t group_norm_chunks(int64_t N, int64_t L, int64_t C);
cudaError_t group_norm(const GroupNormArgs& args, cudaStream_t stream);

}  // namespace syncflow::cuda
