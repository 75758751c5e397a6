// The launchers under names that ctypes finds, and the sizes of their arguments for its mirror.
#include "args.h"

#define SYNCFLOW_EXPORT(name, Args)                             \
  extern "C" int run_##name(const syncflow::cuda::Args* args) { \
    return syncflow::cuda::name(*args, nullptr);                \
  }                                                             \
  extern "C" int size_of_##name() { return sizeof(syncflow::cuda::Args); }

SYNCFLOW_EXPORT(adaln_forward, AdalnArgs)
SYNCFLOW_EXPORT(adaln_backward, AdalnArgs)
SYNCFLOW_EXPORT(temporal_attention_forward, TemporalAttentionArgs)
SYNCFLOW_EXPORT(temporal_attention_backward, TemporalAttentionArgs)
SYNCFLOW_EXPORT(qk_norm_rope_forward, QkNormRopeArgs)
SYNCFLOW_EXPORT(qk_norm_rope_backward, QkNormRopeArgs)
SYNCFLOW_EXPORT(bias_gelu_forward, BiasGeluArgs)
SYNCFLOW_EXPORT(bias_gelu_backward, BiasGeluArgs)
SYNCFLOW_EXPORT(patchify3d_forward, Patchify3dArgs)
SYNCFLOW_EXPORT(unpatchify3d_forward, Patchify3dArgs)
SYNCFLOW_EXPORT(euler_cfg_forward, EulerCfgArgs)
SYNCFLOW_EXPORT(rotate, RotateArgs)
SYNCFLOW_EXPORT(attend_own, AttendOwnArgs)
SYNCFLOW_EXPORT(group_norm, GroupNormArgs)

using namespace syncflow::cuda;
extern "C" int64_t adaln_chunk_count(int64_t groups, int64_t tokens) {
  return adaln_chunks(groups, tokens);
}
extern "C" int adaln_wants_stats(const AdalnArgs* args) { return adaln_needs_stats(*args); }
extern "C" int64_t temporal_attention_slot_count(const TemporalAttentionArgs* args) {
  return temporal_attention_slots(*args);
}
extern "C" const char* temporal_attention_refused(const TemporalAttentionArgs* args) {
  return temporal_attention_refusal(*args);
}
extern "C" int temporal_attention_on_matrix_units(const TemporalAttentionArgs* args) {
  return temporal_attention_is_matrix(*args);
}
extern "C" int64_t qk_norm_rope_slot_count(const QkNormRopeArgs* args) {
  return qk_norm_rope_slots(*args);
}
extern "C" int64_t bias_gelu_chunk_count(const BiasGeluArgs* args) {
  return bias_gelu_chunks(*args);
}
extern "C" int64_t group_norm_chunk_count(int64_t N, int64_t L, int64_t C) {
  return group_norm_chunks(N, L, C);
}
