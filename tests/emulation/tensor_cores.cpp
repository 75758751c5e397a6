// What the matrix instructions compute, and the 16-bit numbers that they read.
#include <cstring>

#include "emulation.h"

namespace emulation {

float from_bf16(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}

uint16_t to_bf16(float value) {
  uint32_t word;
  std::memcpy(&word, &value, 4);
  if (value != value) return 0x7fff;
  return static_cast<uint16_t>((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

float from_fp16(uint16_t bits) {
  _Float16 half;
  std::memcpy(&half, &bits, 2);
  return static_cast<float>(half);
}

uint16_t to_fp16(float value) {
  const auto half = static_cast<_Float16>(value);
  uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}

void meet_mma(void* const slots[32]) {
  const auto& first = *static_cast<MmaSlot*>(slots[0]);
  const auto number = [&](uint32_t word, int half) {
    const auto bits = static_cast<uint16_t>(half ? word >> 16 : word);
    return static_cast<double>(first.is_bf16 ? from_bf16(bits) : from_fp16(bits));
  };
  double a[16][16] = {}, b[16][8] = {};
  for (int lane = 0; lane < 32; ++lane) {
    const auto& slot = *static_cast<MmaSlot*>(slots[lane]);
    const int g = lane / 4, j = lane % 4;
    for (int half = 0; half < 2; ++half)
      for (int k8 = 0; k8 < first.k / 8; ++k8) {
        const int k = 8 * k8 + 2 * j + half;
        a[g][k] = number(slot.a[2 * k8], half);
        a[g + 8][k] = number(slot.a[2 * k8 + 1], half);
        b[k][g] = number(slot.b[k8], half);
      }
  }
  for (int lane = 0; lane < 32; ++lane)
    for (int e = 0; e < 4; ++e) {
      float& c = static_cast<MmaSlot*>(slots[lane])->c[e];
      double sum = c;
      for (int k = 0; k < first.k; ++k)
        sum += a[lane / 4 + 8 * (e / 2)][k] * b[k][2 * (lane % 4) + e % 2];
      c = static_cast<float>(sum);
    }
}

uint32_t transposed(uint32_t block, const Site& site) {
  collective("movmatrix", site, 0xffffffffu, &block, [](void* const slots[32]) {
    uint16_t m[8][8];
    for (int lane = 0; lane < 32; ++lane) std::memcpy(&m[lane / 4][lane % 4 * 2], slots[lane], 4);
    for (int lane = 0; lane < 32; ++lane) {
      const uint16_t pair[2] = {m[lane % 4 * 2][lane / 4], m[lane % 4 * 2 + 1][lane / 4]};
      std::memcpy(slots[lane], pair, 4);
    }
  });
  return block;
}

}  // namespace emulation
