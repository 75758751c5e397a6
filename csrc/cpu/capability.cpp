#include "capability.h"

#include <ATen/Version.h>

#include <string>

namespace syncflow::cpu {

Capability capability() {
  static const Capability value = [] {
    const std::string name = at::get_cpu_capability();
    return name == "AVX512" ? Capability::kAvx512
           : name == "AVX2" ? Capability::kAvx2
                            : Capability::kDefault;
  }();
  return value;
}

}  // namespace syncflow::cpu
