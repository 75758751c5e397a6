// GELU in its tanh form. With u = sqrt(2 / pi) (z + 0.044715 z^3):
//   0.5 z (1 + tanh u) = z p,  p = 1 / (1 + exp(-2u)):  one exponential in place of a tangent.
#include "../bias_gelu.h"

#include "vectors.h"

namespace syncflow::cpu::CPU_CAPABILITY {
namespace {

constexpr double kSlope = 2 * 0.79788456080286535588;  // 2 sqrt(2 / pi)
constexpr double kCubic = 0.044715;
constexpr double kLog2E = 1.44269504088896340736;

// Further out GELU is 0 or z to every digit, with slopes 0 and 1, and nothing here overflows.
constexpr double kFar = 16;

// exp(-2u) of z and z^2, as a power of two; p = 1 / (1 + this).
template <class A>
inline Vec<A> decay(const Vec<A>& z, const Vec<A>& square) {
  constexpr double slope = -kSlope * kLog2E;
  return power_of_two<A>(z * at::vec::fmadd(square, Vec<A>(A(slope * kCubic)), Vec<A>(A(slope))));
}

template <class A>
void forward(const BiasGeluArgs& a, int64_t begin, int64_t end) {
  Scratch<A> x_buffer(a.C), out_buffer(a.C), bias_buffer(a.C);
  const A* bias = a.bias.data ? read<A>(a.bias, 0, bias_buffer, a.C) : nullptr;
  const int64_t rows = (a.total + a.C - 1) / a.C;
  for (int64_t r = begin * a.chunk; r < std::min(end * a.chunk, rows); ++r) {
    const int64_t count = std::min(a.C, a.total - r * a.C);
    const A* x = read<A>(a.x, r, x_buffer, count);
    A* out = target<A>(a.out, r, out_buffer);
    const auto each = [&](auto&& z_at) {
      for_vectors<A>(count, [&](int64_t i, int64_t n) {
        const Vec<A> z = larger<A>(Vec<A>(A(-kFar)), z_at(i, n));
        (z * reciprocal<A>(Vec<A>(1) + decay<A>(z, z * z))).store(out + i, n);
      });
    };
    if (bias) {
      each([&](int64_t i, int64_t n) { return load(x + i, n) + load(bias + i, n); });
    } else {
      each([&](int64_t i, int64_t n) { return load(x + i, n); });
    }
    write<A>(a.out, r, out, count);
  }
}

// d(z p)/dz = p + z p (1 - p) d(2u)/dz, and 1 - p = exp(-2u) p keeps its digits where p is near 1.
template <class A>
void backward(const BiasGeluArgs& a, int64_t begin, int64_t end) {
  Scratch<A> x_buffer(a.C), g_buffer(a.C), grad_buffer(a.C), bias_buffer(a.C);
  const A* bias = a.bias.data ? read<A>(a.bias, 0, bias_buffer, a.C) : nullptr;
  const int64_t rows = (a.total + a.C - 1) / a.C;
  for (int64_t task = begin; task < end; ++task) {
    A* sums = bias ? static_cast<A*>(a.partial) + task * a.C : nullptr;
    for (int64_t r = task * a.chunk; r < std::min((task + 1) * a.chunk, rows); ++r) {
      const int64_t count = std::min(a.C, a.total - r * a.C);
      const A* x = read<A>(a.x, r, x_buffer, count);
      const A* g = read<A>(a.grad_out, r, g_buffer, count);
      A* grad = target<A>(a.grad_x, r, grad_buffer);
      const auto slope = [&](const Vec<A>& z_i, const Vec<A>& g_i) {
        const Vec<A> z = smaller<A>(Vec<A>(A(kFar)), larger<A>(Vec<A>(A(-kFar)), z_i));
        const Vec<A> square = z * z, e = decay<A>(z, square);
        const Vec<A> p = reciprocal<A>(Vec<A>(1) + e);
        const Vec<A> d_2u =
            at::vec::fmadd(square, Vec<A>(A(3 * kSlope * kCubic)), Vec<A>(A(kSlope)));
        return g_i * at::vec::fmadd(z * p, e * p * d_2u, p);
      };
      if (bias) {
        for_vectors<A>(count, [&](int64_t i, int64_t n) {
          const Vec<A> d = slope(load(x + i, n) + load(bias + i, n), load(g + i, n));
          d.store(grad + i, n);
          (load(sums + i, n) + d).store(sums + i, n);
        });
      } else {
        for_vectors<A>(count, [&](int64_t i, int64_t n) {
          slope(load(x + i, n), load(g + i, n)).store(grad + i, n);
        });
      }
      write<A>(a.grad_x, r, grad, count);
    }
  }
}

}  // namespace

void bias_gelu_forward(const BiasGeluArgs& args, bool is_double, int64_t begin, int64_t end) {
  is_double ? forward<double>(args, begin, end) : forward<float>(args, begin, end);
}

void bias_gelu_backward(const BiasGeluArgs& args, bool is_double, int64_t begin, int64_t end) {
  is_double ? backward<double>(args, begin, end) : backward<float>(args, begin, end);
}

}  // namespace syncflow::cpu::CPU_CAPABILITY
