// Rows of any storage type as rows of float (or double), and loops over them by whole vectors with
// a partial one at the end.
#pragma once

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "../rows.h"

namespace syncflow::cpu::CPU_CAPABILITY {
namespace {

template <class A>
using Vec = at::vec::Vectorized<A>;

template <class A>
inline Vec<A> load(const A* p, int64_t n) {
  return n == Vec<A>::size() ? Vec<A>::loadu(p) : Vec<A>::loadu(p, n);
}

// body(i, n): n elements from i; n is a compile-time constant in all but the last call, so that
// load and store fold.
template <class A, class Body>
inline void for_vectors(int64_t count, Body&& body) {
  constexpr int64_t width = Vec<A>::size();
  int64_t i = 0;
  for (; i + width <= count; i += width) body(i, width);
  if (i < count) body(i, count - i);
}

template <class A>
inline A reduce(const Vec<A>& v) {
  return at::vec::vec_reduce_all<A>([](Vec<A>& a, Vec<A>& b) { return a + b; }, v);
}

// The sum over i of term(i, n), whose lanes from n on must be zero. Four accumulators hide the
// latency of an addition.
template <class A, class Term>
inline A sum(int64_t count, Term&& term) {
  constexpr int64_t width = Vec<A>::size();
  Vec<A> a(0), b(0), c(0), d(0);
  int64_t i = 0;
  for (; i + 4 * width <= count; i += 4 * width) {
    a = a + term(i, width);
    b = b + term(i + width, width);
    c = c + term(i + 2 * width, width);
    d = d + term(i + 3 * width, width);
  }
  for (; i + width <= count; i += width) a = a + term(i, width);
  if (i < count) b = b + term(i, count - i);
  return reduce<A>((a + b) + (c + d));
}

// Scratch for one row: whole vectors never straddle a cache line, and a conversion may write past
// the row's end.
template <class A>
class Scratch {
 public:
  explicit Scratch(int64_t channels) : storage_(channels + 4 * Vec<A>::size() + kLine / sizeof(A)) {
    const auto address = reinterpret_cast<uintptr_t>(storage_.data());
    data_ = reinterpret_cast<A*>((address + kLine - 1) / kLine * kLine);
  }
  A* data() { return data_; }

 private:
  static constexpr uintptr_t kLine = 64;
  std::vector<A> storage_;
  A* data_;
};

template <class T>
inline const float* widen(const T* from, float* to, int64_t count) {
  constexpr int64_t width = Vec<T>::size();
  for (int64_t i = 0; i < count; i += width) {
    const int64_t n = std::min(width, count - i);
    const auto narrow = n == width ? Vec<T>::loadu(from + i) : Vec<T>::loadu(from + i, n);
    const auto [low, high] = at::vec::convert_to_float<T>(narrow);
    low.store(to + i);
    high.store(to + i + Vec<float>::size());
  }
  return to;
}

#ifdef CPU_CAPABILITY_AVX512
// One instruction where the machine has it; at::vec rounds by hand, in about ten. It makes zeros of
// numbers below 2^-126, which rounding by hand keeps.
__attribute__((target("avx512bf16"))) inline void narrow_bf16(const float* from, c10::BFloat16* to,
                                                              int64_t count) {
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m512bh v =
        _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + 16), _mm512_loadu_ps(from + i));
    _mm512_storeu_si512(to + i, reinterpret_cast<const __m512i&>(v));
  }
  if (i < count) {
    const __m512bh v =
        _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + 16), _mm512_loadu_ps(from + i));
    const auto lanes = static_cast<__mmask32>((1u << (count - i)) - 1);
    _mm512_mask_storeu_epi16(to + i, lanes, reinterpret_cast<const __m512i&>(v));
  }
}
#endif

// `from` is scratch: whole vectors are read, past `count`.
template <class T>
inline void narrow(const float* from, T* to, int64_t count) {
#ifdef CPU_CAPABILITY_AVX512
  if constexpr (std::is_same_v<T, c10::BFloat16>) {
    if (__builtin_cpu_supports("avx512bf16")) return narrow_bf16(from, to, count);
  }
#endif
  constexpr int64_t width = Vec<T>::size();
  for (int64_t i = 0; i < count; i += width) {
    const int64_t n = std::min(width, count - i);
    const auto v = at::vec::convert_from_float<T>(Vec<float>::loadu(from + i),
                                                  Vec<float>::loadu(from + i + Vec<float>::size()));
    if (n == width) {
      v.store(to + i);
    } else {
      v.store(to + i, n);
    }
  }
}

// Of a number and NaN, in either order, at::vec keeps NaN, which takes it four instructions; these
// are one, and keep the second.
template <class A>
inline Vec<A> larger(const Vec<A>& a, const Vec<A>& b) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<A, float>) return _mm512_max_ps(a, b);
#elif defined(CPU_CAPABILITY_AVX2)
  if constexpr (std::is_same_v<A, float>) return _mm256_max_ps(a, b);
#endif
  return at::vec::maximum(a, b);
}

template <class A>
inline Vec<A> smaller(const Vec<A>& a, const Vec<A>& b) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<A, float>) return _mm512_min_ps(a, b);
#elif defined(CPU_CAPABILITY_AVX2)
  if constexpr (std::is_same_v<A, float>) return _mm256_min_ps(a, b);
#endif
  return at::vec::minimum(a, b);
}

// 2^v, where v beyond -126 or 126 counts as that. In float with vectors: a polynomial in what
// rounding v leaves (minimax on [-1/2, 1/2], off by a unit in the last place), inline, which the
// library's is not.
template <class A>
inline Vec<A> power_of_two(const Vec<A>& v) {
#if defined(CPU_CAPABILITY_AVX2) || defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<A, float>) {
    using V = Vec<float>;
    const V x = smaller<A>(V(126.0f), larger<A>(V(-126.0f), v));
    const V n = x.round(), f = x - n;
    V p = at::vec::fmadd(V(1.53533620e-4f), f, V(1.33988750e-3f));
    p = at::vec::fmadd(p, f, V(9.61843692e-3f));
    p = at::vec::fmadd(p, f, V(5.55033237e-2f));
    p = at::vec::fmadd(p, f, V(2.40226477e-1f));
    p = at::vec::fmadd(p, f, V(6.93147182e-1f));
    p = at::vec::fmadd(p, f, V(1.0f));
#ifdef CPU_CAPABILITY_AVX512
    return _mm512_scalef_ps(p, n);
#else
    const auto exponent = at::vec::convert_to_int_of_same_size<float>(n);
    const Vec<int32_t> bits = (exponent + Vec<int32_t>(127)) << Vec<int32_t>(23);
    return p * at::vec::cast<float, int32_t>(bits);
#endif
  }
#endif
  return smaller<A>(Vec<A>(126), larger<A>(Vec<A>(-126), v)).exp2();
}

// 1 / v for v from 1 to 2^126. Where a guess of 14 bits is one instruction, a step of Newton's makes
// it as good as the division to two units in the last place, at a third of the time.
template <class A>
inline Vec<A> reciprocal(const Vec<A>& v) {
#ifdef CPU_CAPABILITY_AVX512
  if constexpr (std::is_same_v<A, float>) {
    const Vec<A> guess = _mm512_rcp14_ps(v);
    return at::vec::fmadd(guess, at::vec::fnmadd(guess, v, Vec<A>(1)), guess);
  }
#endif
  return Vec<A>(1) / v;
}

// Row r: where it lies if it is of type A already, converted into `buffer` otherwise.
template <class A>
inline const A* read(const Rows& rows, int64_t r, Scratch<A>& buffer, int64_t channels) {
  if constexpr (std::is_same_v<A, float>) {
    if (rows.dtype == c10::ScalarType::BFloat16)
      return widen(reinterpret_cast<c10::BFloat16*>(rows.data) + r * rows.stride, buffer.data(),
                   channels);
    if (rows.dtype == c10::ScalarType::Half)
      return widen(reinterpret_cast<c10::Half*>(rows.data) + r * rows.stride, buffer.data(),
                   channels);
  }
  return reinterpret_cast<A*>(rows.data) + r * rows.stride;
}

// Where to compute row r before `write` stores it.
template <class A>
inline A* target(const Rows& rows, int64_t r, Scratch<A>& buffer) {
  const bool direct = !std::is_same_v<A, float> || rows.dtype == c10::ScalarType::Float;
  return direct ? reinterpret_cast<A*>(rows.data) + r * rows.stride : buffer.data();
}

template <class A>
inline void write(const Rows& rows, int64_t r, const A* row, int64_t channels) {
  if constexpr (std::is_same_v<A, float>) {
    if (rows.dtype == c10::ScalarType::BFloat16)
      narrow(row, reinterpret_cast<c10::BFloat16*>(rows.data) + r * rows.stride, channels);
    if (rows.dtype == c10::ScalarType::Half)
      narrow(row, reinterpret_cast<c10::Half*>(rows.data) + r * rows.stride, channels);
  }
}

}  // namespace
}  // namespace syncflow::cpu::CPU_CAPABILITY
