// Norm and rotation of the queries and keys of a packed projection, token by token.
#include "../qk_norm_rope.h"

#include "heads.h"

namespace syncflow::cpu::CPU_CAPABILITY {
namespace {

// body(b, n, h) for every head of every token of chunk `chunk`, then done() for the token.
template <class A, class Body, class Done>
void for_heads(const QkNormRopeArgs& a, int64_t chunk, Scratch<A>& cos, Scratch<A>& sin,
               Body&& body, Done&& done) {
  const auto& [B, N, one, H, D] = a.sizes;
  for (int64_t token = chunk * a.chunk; token < std::min((chunk + 1) * a.chunk, B * N); ++token) {
    const int64_t b = token / N, n = token % N;
    if (a.transform.rotation) expand_rotation<A>(a.transform, n, D, cos.data(), sin.data());
    for (int64_t h = 0; h < H; ++h) body(b, n, h);
    done();
  }
}

template <class A>
void forward(const QkNormRopeArgs& a, int64_t begin, int64_t end) {
  const int64_t D = a.sizes.D;
  Scratch<A> cos(D), sin(D), staging(D), normed(D), row(D);
  const bool rotates = a.transform.rotation;
  const bool in_place = a.out.data == a.qkv.data;
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    for_heads<A>(
        a, chunk, cos, sin,
        [&](int64_t b, int64_t n, int64_t h) {
          for (int which = 0; which < 3; ++which) {
            if (which == 2 && in_place) break;
            const A* x = read_head<A>(a.qkv, a.qkv.at(b, n, 0, which, h), staging.data(), D);
            if (which < 2) {
              transform_head<A>(a.transform, which, x, rotates ? cos.data() : nullptr, sin.data(),
                                A(1), normed.data(), row.data(), D);
              x = row.data();
            }
            write_head<A>(a.out, a.out.at(b, n, 0, which, h), x, D);
          }
        },
        [] {});
  }
}

template <class A>
void backward(const QkNormRopeArgs& a, int64_t begin, int64_t end) {
  const int64_t D = a.sizes.D;
  Scratch<A> cos(D), sin(D), x_staging(D), g_staging(D), turned(D), row(D);
  GainSums<A> d_weight(D);
  const bool rotates = a.transform.rotation;
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    for_heads<A>(
        a, chunk, cos, sin,
        [&](int64_t b, int64_t n, int64_t h) {
          for (int which = 0; which < 3; ++which) {
            const A* g =
                read_head<A>(a.grad_out, a.grad_out.at(b, n, 0, which, h), g_staging.data(), D);
            if (which < 2) {
              const A* x = read_head<A>(a.qkv, a.qkv.at(b, n, 0, which, h), x_staging.data(), D);
              transform_head_backward<A>(a.transform, which, x, g, rotates ? cos.data() : nullptr,
                                         sin.data(), d_weight[which], turned.data(), row.data(), D);
            } else {
              copy_row<A>(g, row.data(), D);  // narrowing reads whole vectors
            }
            write_head<A>(a.grad_qkv, a.grad_qkv.at(b, n, 0, which, h), row.data(), D);
          }
        },
        [&] { d_weight.add_to(static_cast<A*>(a.partial) + chunk * 2 * D); });
  }
}

}  // namespace

void qk_norm_rope_forward(const QkNormRopeArgs& args, bool is_double, int64_t begin, int64_t end) {
  is_double ? forward<double>(args, begin, end) : forward<float>(args, begin, end);
}

void qk_norm_rope_backward(const QkNormRopeArgs& args, bool is_double, int64_t begin, int64_t end) {
  is_double ? backward<double>(args, begin, end) : backward<float>(args, begin, end);
}

}  // namespace syncflow::cpu::CPU_CAPABILITY
