// What the kernels of attention share: rotations of a whole sequence, and softmax over scores that
// lie with keys down and queries across.
#pragma once

#include "heads.h"
#include "tile.h"

namespace syncflow::cpu::CPU_CAPABILITY {
namespace {

// The cosines and signed sines of every position; nullptr where nothing is rotated.
template <class A>
struct Rotation {
  Rotation(const HeadTransform& h, int64_t T, int64_t D)
      : rotates(h.rotation), ld(padded<A>(D)), cos_(rotates ? T * ld : 0), sin_(cos_.size()) {
    for (int64_t t = 0; rotates && t < T; ++t)
      expand_rotation<A>(h, t, D, cos_.data() + t * ld, sin_.data() + t * ld);
  }
  const A* cos(int64_t t) const { return rotates ? cos_.data() + t * ld : nullptr; }
  const A* sin(int64_t t) const { return rotates ? sin_.data() + t * ld : nullptr; }

 private:
  bool rotates;
  int64_t ld;
  std::vector<A> cos_, sin_;
};

// Scores lie with keys down and queries across, so that a softmax over keys adds vectors and never
// the lanes of one. Columns of [T, columns] become their softmax; columns past the last query hold
// whatever they did and are not read.
template <class A>
void softmax_columns(A* scores, int64_t ld, int64_t columns, int64_t T) {
  constexpr int64_t width = Vec<A>::size();
  const Vec<A> log2_e(A(1.44269504088896340736));
  for (int64_t i = 0; i < columns; i += width) {
    A* column = scores + i;
    Vec<A> top = Vec<A>::loadu(column);
    // A score that is NaN may be missed here; its power is not.
    for (int64_t t = 1; t < T; ++t) top = larger<A>(top, Vec<A>::loadu(column + t * ld));
    Vec<A> total(0);
    for (int64_t t = 0; t < T; ++t) {
      const Vec<A> e = power_of_two<A>((Vec<A>::loadu(column + t * ld) - top) * log2_e);
      e.store(column + t * ld);
      total = total + e;
    }
    const Vec<A> share = Vec<A>(1) / total;
    for (int64_t t = 0; t < T; ++t) (Vec<A>::loadu(column + t * ld) * share).store(column + t * ld);
  }
}

// `grads` of the softmax become those of the scores: with P = `softmax` [T, columns], both as above,
//   dS = P (dP - colsum(P dP))
template <class A>
void softmax_columns_backward(const A* softmax, A* grads, int64_t ld, int64_t columns, int64_t T) {
  constexpr int64_t width = Vec<A>::size();
  for (int64_t i = 0; i < columns; i += width) {
    const A* p = softmax + i;
    A* d = grads + i;
    Vec<A> products(0);
    for (int64_t t = 0; t < T; ++t)
      products = at::vec::fmadd(Vec<A>::loadu(p + t * ld), Vec<A>::loadu(d + t * ld), products);
    for (int64_t t = 0; t < T; ++t)
      (Vec<A>::loadu(p + t * ld) * (Vec<A>::loadu(d + t * ld) - products)).store(d + t * ld);
  }
}

}  // namespace
}  // namespace syncflow::cpu::CPU_CAPABILITY
