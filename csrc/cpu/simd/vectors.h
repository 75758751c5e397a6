// Rows of any storage type as rows of float (or double), and loops over them by whole vectors with a partial one at the end.
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

// body(i, n): n elements from i; n is a compile-time constant in all but the last call, so that load and store fold.
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

// The sum over i of term(i, n), whose lanes from n on must be zero. Four accumulators hide the latency of an addition.
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

// Scratch for one row: long enough that a conversion may write whole vectors past its end.
template <class A>
inline std::vector<A> scratch(int64_t channels) {
  return std::vector<A>(channels + 4 * Vec<A>::size());
}

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

template <class T>
inline void narrow(const float* from, T* to, int64_t count) {
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

// Row r: where it lies if it is of type A already, converted into `buffer` otherwise.
template <class A>
inline const A* read(const Rows& rows, int64_t r, std::vector<A>& buffer, int64_t channels) {
  if constexpr (std::is_same_v<A, float>) {
    if (rows.dtype == c10::ScalarType::BFloat16)
      return widen(reinterpret_cast<c10::BFloat16*>(rows.data) + r * rows.stride, buffer.data(), channels);
    if (rows.dtype == c10::ScalarType::Half)
      return widen(reinterpret_cast<c10::Half*>(rows.data) + r * rows.stride, buffer.data(), channels);
  }
  return reinterpret_cast<A*>(rows.data) + r * rows.stride;
}

// Where to compute row r before `write` stores it.
template <class A>
inline A* target(const Rows& rows, int64_t r, std::vector<A>& buffer) {
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
