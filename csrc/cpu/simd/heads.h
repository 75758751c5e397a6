// One head's row of a packed projection: reading and writing it, its norm and its rotation, and the
// gradients of both.
#pragma once

#include <c10/macros/Macros.h>

#include <cmath>

#include "../packed.h"
#include "vectors.h"

namespace syncflow::cpu::CPU_CAPABILITY {
namespace {

template <class A>
inline int64_t padded(int64_t count) {
  constexpr int64_t width = Vec<A>::size();
  return (count + width - 1) / width * width;
}

template <class A>
inline void copy_row(const A* from, A* to, int64_t count) {
  for_vectors<A>(count, [&](int64_t i, int64_t n) { load(from + i, n).store(to + i, n); });
}

// `count` elements from `offset`, where they lie if they are of type A, else converted.
template <class A>
inline const A* read_head(const Packed& x, int64_t offset, A* buffer, int64_t count) {
  if constexpr (std::is_same_v<A, float>) {
    if (x.dtype == c10::ScalarType::BFloat16)
      return widen(reinterpret_cast<const c10::BFloat16*>(x.data) + offset, buffer, count);
    if (x.dtype == c10::ScalarType::Half)
      return widen(reinterpret_cast<const c10::Half*>(x.data) + offset, buffer, count);
  }
  return reinterpret_cast<const A*>(x.data) + offset;
}

template <class A>
inline void write_head(const Packed& x, int64_t offset, const A* row, int64_t count) {
  if constexpr (std::is_same_v<A, float>) {
    if (x.dtype == c10::ScalarType::BFloat16)
      return narrow(row, reinterpret_cast<c10::BFloat16*>(x.data) + offset, count);
    if (x.dtype == c10::ScalarType::Half)
      return narrow(row, reinterpret_cast<c10::Half*>(x.data) + offset, count);
  }
  copy_row(row, reinterpret_cast<A*>(x.data) + offset, count);
}

template <class A>
inline Vec<A> swap_pairs(const Vec<A>& v) {
  if constexpr (std::is_same_v<A, float>) {
#if defined(CPU_CAPABILITY_AVX512)
    return _mm512_permute_ps(v, 0xB1);
#elif defined(CPU_CAPABILITY_AVX2)
    return _mm256_permute_ps(v, 0xB1);
#endif
  }
  A lanes[Vec<A>::size()];
  v.store(lanes);
  for (int64_t i = 0; i < Vec<A>::size(); i += 2) std::swap(lanes[i], lanes[i + 1]);
  return Vec<A>::loadu(lanes);
}

// The cosines and signed sines of one position, one per element: with p(i) the other element of
// i's pair, a rotated row is y[i] cos[i] + y[p(i)] sin[i].
template <class A>
inline void expand_rotation(const HeadTransform& h, int64_t t, int64_t D, A* cos, A* sin) {
  const A* pairs = static_cast<const A*>(h.rotation) + t * D;
  const int64_t half = D / 2;
  for (int64_t i = 0; i < half; ++i) {
    const int64_t first = h.interleaved ? 2 * i : i, second = h.interleaved ? first + 1 : i + half;
    cos[first] = cos[second] = pairs[2 * i];
    sin[first] = -pairs[2 * i + 1];
    sin[second] = pairs[2 * i + 1];
  }
}

// body(i, partner, n): n elements from i, and where their partners begin if pairs are halves.
template <class A, class Body>
inline void for_halves(int64_t D, Body&& body) {
  const int64_t half = D / 2;
  for_vectors<A>(half, [&](int64_t i, int64_t n) { body(i, i + half, n); });
  for_vectors<A>(half, [&](int64_t i, int64_t n) { body(i + half, i, n); });
}

// to = y rotated, pairs being halves; `to` is not y.
template <class A>
inline void rotate_halves(const A* y, const A* cos, const A* sin, A* to, int64_t D) {
  for_halves<A>(D, [&](int64_t i, int64_t p, int64_t n) {
    at::vec::fmadd(load(y + p, n), load(sin + i, n), load(y + i, n) * load(cos + i, n))
        .store(to + i, n);
  });
}

// to = g rotated back, the transpose of the rotation; `to` is not g.
template <class A>
inline void rotate_back(bool interleaved, const A* g, const A* cos, const A* sin, A* to,
                        int64_t D) {
  if (interleaved) {
    for_vectors<A>(D, [&](int64_t i, int64_t n) {
      const Vec<A> v = load(g + i, n);
      at::vec::fmadd(v, load(cos + i, n), swap_pairs<A>(v * load(sin + i, n))).store(to + i, n);
    });
  } else {
    for_halves<A>(D, [&](int64_t i, int64_t p, int64_t n) {
      at::vec::fmadd(load(g + p, n), load(sin + p, n), load(g + i, n) * load(cos + i, n))
          .store(to + i, n);
    });
  }
}

template <class A>
inline A inverse_rms(const A* x, int64_t D, double eps) {
  const A squares = sum<A>(D, [&](int64_t i, int64_t n) {
    const Vec<A> v = load(x + i, n);
    return v * v;
  });
  // In double: the gradient's two halves nearly cancel, and would show every rounding of this one
  // number.
  return static_cast<A>(1 / std::sqrt(static_cast<double>(squares) / D + eps));
}

// to = factor * rotation(weight * x / rms(x)); `cos` is nullptr where nothing is rotated. `scratch`
// holds a row.
template <class A>
C10_ALWAYS_INLINE void transform_head(const HeadTransform& h, int which, const A* x, const A* cos,
                                      const A* sin, A factor, A* scratch, A* to, int64_t D) {
  const A* weight = static_cast<const A*>(h.weight[which]);
  const Vec<A> r(weight ? factor * inverse_rms(x, D, h.eps) : factor);
  const auto each = [&](auto&& normed) {
    if (cos && h.interleaved) {
      // Pairs are neighbours: the normed row need not be stored.
      for_vectors<A>(D, [&](int64_t i, int64_t n) {
        const Vec<A> v = normed(i, n);
        at::vec::fmadd(swap_pairs<A>(v), load(sin + i, n), v * load(cos + i, n)).store(to + i, n);
      });
      return;
    }
    A* target = cos ? scratch : to;
    for_vectors<A>(D, [&](int64_t i, int64_t n) { normed(i, n).store(target + i, n); });
    if (cos) rotate_halves(scratch, cos, sin, to, D);
  };
  if (weight) {
    each([&](int64_t i, int64_t n) { return load(x + i, n) * r * load(weight + i, n); });
  } else {
    each([&](int64_t i, int64_t n) { return load(x + i, n) * r; });
  }
}

// The gradient of `transform_head` (with factor 1) by x, for g by its result; adds the gradient of
// the gain to d_weight. With n = x / rms and u = g rotated back:
//   dweight = n u,   dx = (weight u - n mean(weight u n)) / rms
// `scratch` holds a row; `to` may be g.
template <class A>
inline void transform_head_backward(const HeadTransform& h, int which, const A* x, const A* g,
                                    const A* cos, const A* sin, A* d_weight, A* scratch, A* to,
                                    int64_t D) {
  const A* weight = static_cast<const A*>(h.weight[which]);
  const A* u = g;
  if (cos) {
    rotate_back(h.interleaved, g, cos, sin, scratch, D);
    u = scratch;
  }
  if (!weight) {
    if (u != to) copy_row(u, to, D);
    return;
  }
  const A rms = inverse_rms(x, D, h.eps);
  const Vec<A> r(rms);
  Vec<A> products(0);
  for_vectors<A>(D, [&](int64_t i, int64_t n) {
    // Lanes from n on are zero in both factors.
    const Vec<A> normed = load(x + i, n) * r, un = load(u + i, n) * normed;
    (load(d_weight + i, n) + un).store(d_weight + i, n);
    products = at::vec::fmadd(un, load(weight + i, n), products);
  });
  const Vec<A> mean(reduce<A>(products) / A(D));
  for_vectors<A>(D, [&](int64_t i, int64_t n) {
    const Vec<A> normed = load(x + i, n) * r;
    ((load(weight + i, n) * load(u + i, n) - normed * mean) * r).store(to + i, n);
  });
}

// Sums of the gains' gradients [2, D] over few rows, then added to those over many: a long row of
// small terms loses fewer digits that way.
template <class A>
class GainSums {
 public:
  explicit GainSums(int64_t D) : D_(D), sums_{Scratch<A>(D), Scratch<A>(D)} {}
  A* operator[](int which) { return sums_[which].data(); }
  void add_to(A* totals) {
    for (int which = 0; which < 2; ++which) {
      A *sum = sums_[which].data(), *total = totals + which * D_;
      for_vectors<A>(D_, [&](int64_t i, int64_t n) {
        (load(total + i, n) + load(sum + i, n)).store(total + i, n);
        Vec<A>(0).store(sum + i, n);
      });
    }
  }

 private:
  int64_t D_;
  Scratch<A> sums_[2];
};

}  // namespace
}  // namespace syncflow::cpu::CPU_CAPABILITY
