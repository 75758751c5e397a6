// Kernels in csrc/cpu/simd/ are compiled once per instruction set, each time in another namespace;
// the machine picks one at run time, by PyTorch's own rule (so
// ATEN_CPU_CAPABILITY=default|avx2|avx512 holds here too).
#pragma once

namespace syncflow::cpu {

enum class Capability { kDefault, kAvx2, kAvx512 };

Capability capability();

}  // namespace syncflow::cpu

#ifdef SYNCFLOW_X86
#define SYNCFLOW_DECLARE(...) \
  namespace DEFAULT {         \
  __VA_ARGS__;                \
  }                           \
  namespace AVX2 {            \
  __VA_ARGS__;                \
  }                           \
  namespace AVX512 {          \
  __VA_ARGS__;                \
  }
#define SYNCFLOW_PICK(function)                            \
  (capability() == Capability::kAvx512 ? &AVX512::function \
   : capability() == Capability::kAvx2 ? &AVX2::function   \
                                       : &DEFAULT::function)
// For work on so few elements that half of every wider vector would be idle.
#define SYNCFLOW_PICK_NARROW(function) \
  (capability() == Capability::kDefault ? &DEFAULT::function : &AVX2::function)
#else
#define SYNCFLOW_DECLARE(...) \
  namespace DEFAULT {         \
  __VA_ARGS__;                \
  }
#define SYNCFLOW_PICK(function) (&DEFAULT::function)
#define SYNCFLOW_PICK_NARROW(function) (&DEFAULT::function)
#endif
