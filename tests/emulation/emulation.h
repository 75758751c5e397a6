// A CUDA device for checking kernels on the host: the threads of a block are fibers, run one at a
// time in a random order; a warp's collectives (shuffles, mma, movmatrix) and barriers are meeting
// points that name the place where a lane is missing; every access to global memory is checked
// against registered regions and counted. One block runs at a time.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <source_location>

namespace emulation {

using Site = std::source_location;

// Ends the launch with a message; the fibers are abandoned.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

void check_access(const void* p, size_t bytes, bool writes);
void launch(const std::function<void()>& kernel, int64_t blocks, int threads, size_t shared);
void* dynamic_shared();

// Waits until all 32 lanes are at `site`; the last to come calls `meet` with every lane's slot.
using Meet = void (*)(void* const slots[32]);
void collective(const char* kind, const Site& site, unsigned mask, void* slot, Meet meet);
void barrier(const Site& site);

template <class Word>
Word read(const void* p) {
  check_access(p, sizeof(Word), false);
  Word word;
  std::memcpy(&word, p, sizeof(Word));
  return word;
}

template <class Word>
void write(void* p, const Word& word) {
  check_access(p, sizeof(Word), true);
  std::memcpy(p, &word, sizeof(Word));
}

float from_bf16(uint16_t bits);
uint16_t to_bf16(float value);
float from_fp16(uint16_t bits);
uint16_t to_fp16(float value);

// PTX ISA, mma.m16n8k16 and mma.m16n8k8 for .f16 and .bf16 operands.
struct MmaSlot {
  float* c;
  uint32_t a[4], b[2];
  int k;
  bool is_bf16;
};
void meet_mma(void* const slots[32]);

template <class T, int K>
void mma(float (&c)[4], std::initializer_list<uint32_t> a, std::initializer_list<uint32_t> b,
         const Site& site = Site::current()) {
  MmaSlot slot{c, {}, {}, K, T::kIsBf16};
  std::copy(a.begin(), a.end(), slot.a);
  std::copy(b.begin(), b.end(), slot.b);
  collective("mma", site, 0xffffffffu, &slot, meet_mma);
}

uint32_t transposed(uint32_t block, const Site& site = Site::current());

}  // namespace emulation
