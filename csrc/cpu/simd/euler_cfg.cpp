// Guidance and the solver's update, element by element.
#include "../euler_cfg.h"

#include "vectors.h"

namespace syncflow::cpu::CPU_CAPABILITY {
namespace {

template <class A>
void forward(const EulerCfgArgs& a, int64_t begin, int64_t end) {
  Scratch<A> x_buffer(a.piece), c_buffer(a.piece), n_buffer(a.piece), out_buffer(a.piece);
  const Vec<A> guidance{A(a.guidance)}, h{A(a.h)};
  for (int64_t r = begin; r < end; ++r) {
    const int64_t count = std::min(a.piece, a.total - r * a.piece);
    const A* x = read<A>(a.x, r, x_buffer, count);
    const A* conditional = read<A>(a.conditional, r, c_buffer, count);
    A* out = target<A>(a.out, r, out_buffer);
    if (a.null.data) {
      const A* null = read<A>(a.null, r, n_buffer, count);
      for_vectors<A>(count, [&](int64_t i, int64_t n) {
        const Vec<A> v_0 = load(null + i, n);
        const Vec<A> v = at::vec::fmadd(guidance, load(conditional + i, n) - v_0, v_0);
        at::vec::fmadd(h, v, load(x + i, n)).store(out + i, n);
      });
    } else {
      for_vectors<A>(count, [&](int64_t i, int64_t n) {
        at::vec::fmadd(h, load(conditional + i, n), load(x + i, n)).store(out + i, n);
      });
    }
    write<A>(a.out, r, out, count);
  }
}

}  // namespace

void euler_cfg_forward(const EulerCfgArgs& args, bool is_double, int64_t begin, int64_t end) {
  is_double ? forward<double>(args, begin, end) : forward<float>(args, begin, end);
}

}  // namespace syncflow::cpu::CPU_CAPABILITY
