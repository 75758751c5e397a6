// The adaLN family, row by row: a row stays in the first-level cache while it is summed, normed and
// modulated.
#include "../adaln.h"

#include <cmath>

#include "vectors.h"

namespace syncflow::cpu::CPU_CAPABILITY {
namespace {

struct Task {
  int64_t group, first, last;  // rows [first, last) of the flattened tokens
};

Task task_at(const AdalnArgs& a, int64_t index) {
  const int64_t group = index / a.chunks_per_group;
  const int64_t start = index % a.chunks_per_group * a.chunk;
  return {group, group * a.tokens + start, group * a.tokens + std::min(start + a.chunk, a.tokens)};
}

template <class A>
A total(const A* v, int64_t C) {
  return sum<A>(C, [&](int64_t i, int64_t n) { return load(v + i, n); });
}

// One over the standard deviation. A pass of its own over the row, which is in cache: the mean of
// squares less the square of the mean loses digits when the mean is large.
template <class A>
A inverse_deviation(const A* v, int64_t C, double eps, A mean) {
  const Vec<A> m(mean);
  const A squares = sum<A>(C, [&](int64_t i, int64_t n) {
    const Vec<A> d = load(v + i, n) - m;
    return n == Vec<A>::size() ? d * d : Vec<A>::set(Vec<A>(0), d * d, n);
  });
  return A(1) / std::sqrt(squares / A(C) + A(eps));
}

// The group's multiplier of the normed row: 1 + scale before a block, the weight itself after one.
template <class A>
const A* multiplier(const AdalnArgs& a, int64_t group, Scratch<A>& buffer, Scratch<A>& staging) {
  const A* scale = read<A>(a.scale, group, staging, a.channels);
  if (a.post_norm) return scale;
  const Vec<A> one(1);
  for_vectors<A>(a.channels, [&](int64_t i, int64_t n) {
    (load(scale + i, n) + one).store(buffer.data() + i, n);
  });
  return buffer.data();
}

// Whether the results can be stored past the caches: whole, aligned vectors alone can.
template <class A>
bool streams(const AdalnArgs& a) {
#ifdef CPU_CAPABILITY_AVX512
  if constexpr (std::is_same_v<A, float>) {
    const auto fits = [&](const Rows& rows) {
      return !rows.data || (rows.dtype == c10::ScalarType::Float &&
                            reinterpret_cast<uintptr_t>(rows.data) % sizeof(__m512) == 0);
    };
    return a.past_caches && a.channels % Vec<A>::size() == 0 && fits(a.sum) && fits(a.out);
  }
#endif
  return false;
}

template <class A>
void put(const Vec<A>& v, A* to, int64_t n, bool past_caches) {
#ifdef CPU_CAPABILITY_AVX512
  if constexpr (std::is_same_v<A, float>) {
    if (past_caches) return _mm512_stream_ps(to, v);
  }
#endif
  v.store(to, n);
}

// What was stored past the caches is visible to other threads before the task ends.
void finish_streams() {
#ifdef CPU_CAPABILITY_AVX512
  _mm_sfence();
#endif
}

template <class A>
void forward(const AdalnArgs& a, int64_t begin, int64_t end) {
  const int64_t C = a.channels;
  Scratch<A> x_buffer(C), y_buffer(C), sum_buffer(C), out_buffer(C);
  Scratch<A> gate_buffer(C), shift_buffer(C), scale_buffer(C);
  Scratch<A> staging(C);
  const bool past = streams<A>(a);
  // A sum that will be normed has to stay at hand.
  const bool sum_later = past && a.sum.data && a.out.data;
  for (int64_t index = begin; index < end; ++index) {
    const Task task = task_at(a, index);
    const A* gate = a.gate.data ? read<A>(a.gate, task.group, gate_buffer, C) : nullptr;
    const A* shift = a.shift.data ? read<A>(a.shift, task.group, shift_buffer, C) : nullptr;
    const A* scale = a.scale.data ? multiplier<A>(a, task.group, scale_buffer, staging) : nullptr;
    for (int64_t r = task.first; r < task.last; ++r) {
      const A* x = read<A>(a.x, r, x_buffer, C);
      const A* y = a.y.data ? read<A>(a.y, r, y_buffer, C) : nullptr;
      const A* normed = a.post_norm ? y : x;
      A row_total = 0;
      if (a.sum.data) {
        A* s = sum_later ? sum_buffer.data() : target<A>(a.sum, r, sum_buffer);
        const auto keep = [&](const Vec<A>& v, int64_t i, int64_t n) {
          put<A>(v, s + i, n, past && !sum_later);
          return v;
        };
        if (gate) {
          row_total = sum<A>(C, [&](int64_t i, int64_t n) {
            return keep(at::vec::fmadd(load(gate + i, n), load(y + i, n), load(x + i, n)), i, n);
          });
        } else {
          row_total = sum<A>(
              C, [&](int64_t i, int64_t n) { return keep(load(x + i, n) + load(y + i, n), i, n); });
        }
        if (!sum_later) write<A>(a.sum, r, s, C);
        if (!a.out.data) continue;
        // Norm the sum as it is stored: backward will see no other.
        normed = sum_later ? s : read<A>(a.sum, r, sum_buffer, C);
        if (normed == sum_buffer.data() && !sum_later) row_total = total(normed, C);
      } else {
        row_total = total(normed, C);
      }
      const A mean = row_total / A(C), rstd = inverse_deviation(normed, C, a.eps, mean);
      const Vec<A> m(mean), r_(rstd);
      const auto modulated = [&](int64_t i, int64_t n) {
        const Vec<A> hat = (load(normed + i, n) - m) * r_;
        return at::vec::fmadd(hat, load(scale + i, n), load(shift + i, n));
      };
      A* out = target<A>(a.out, r, out_buffer);
      if (sum_later) {
        A* to_sum = target<A>(a.sum, r, sum_buffer);
        for_vectors<A>(C, [&](int64_t i, int64_t n) {
          // The next row's y, where y needs no conversion; asking for x as well gained nothing.
          __builtin_prefetch(y + C + i);
          put<A>(load(normed + i, n), to_sum + i, n, true);
          put<A>(modulated(i, n), out + i, n, true);
        });
      } else if (a.post_norm) {
        for_vectors<A>(C, [&](int64_t i, int64_t n) {
          put<A>(modulated(i, n) + load(x + i, n), out + i, n, past);
        });
      } else {
        for_vectors<A>(C, [&](int64_t i, int64_t n) { put<A>(modulated(i, n), out + i, n, past); });
      }
      write<A>(a.out, r, out, C);
    }
  }
  if (past) finish_streams();
}

// With n = (v - mean) rstd, g = grad_out and w the multiplier:
//   dv = rstd (g w - mean(g w) - n mean(g w n)),  dshift = sum g,  dscale = sum g n
// and for v = x + gate y, d = dv + grad_sum:  dx = d,  dy = gate d,  dgate = sum y d.
template <class A>
void backward(const AdalnArgs& a, int64_t begin, int64_t end) {
  const int64_t C = a.channels;
  Scratch<A> v_buffer(C), y_buffer(C), g_buffer(C), s_buffer(C);
  Scratch<A> dx_buffer(C), dy_buffer(C), gate_buffer(C), w_buffer(C);
  Scratch<A> staging(C);
  const Rows& normed_rows = a.post_norm ? a.y : a.x;
  const Rows& normed_grad = a.post_norm ? a.grad_y : a.grad_x;
  for (int64_t index = begin; index < end; ++index) {
    const Task task = task_at(a, index);
    const A* gate = a.gate.data ? read<A>(a.gate, task.group, gate_buffer, C) : nullptr;
    const A* w = a.scale.data ? multiplier<A>(a, task.group, w_buffer, staging) : nullptr;
    A* d_gate = static_cast<A*>(a.partial) + index * 3 * C;
    A* d_shift = d_gate + C;
    A* d_scale = d_shift + C;
    for (int64_t r = task.first; r < task.last; ++r) {
      const A* d = nullptr;  // the gradient of x + gate y
      if (a.grad_out.data) {
        const A* v = read<A>(normed_rows, r, v_buffer, C);
        const A* g = read<A>(a.grad_out, r, g_buffer, C);
        const A* extra = a.grad_sum.data ? read<A>(a.grad_sum, r, s_buffer, C) : nullptr;
        const A mean = total(v, C) / A(C), rstd = inverse_deviation(v, C, a.eps, mean);
        const Vec<A> m(mean), r_(rstd);
        Vec<A> sum_gw(0), sum_gwn(0);
        for_vectors<A>(C, [&](int64_t i, int64_t n) {
          // Lanes from n on: g is zero there, so that every product is.
          const Vec<A> g_i = load(g + i, n), hat = (load(v + i, n) - m) * r_,
                       gw = g_i * load(w + i, n);
          (load(d_shift + i, n) + g_i).store(d_shift + i, n);
          at::vec::fmadd(g_i, hat, load(d_scale + i, n)).store(d_scale + i, n);
          sum_gw = sum_gw + gw;
          sum_gwn = at::vec::fmadd(gw, hat, sum_gwn);
        });
        const Vec<A> mean_gw(reduce<A>(sum_gw) / A(C)), mean_gwn(reduce<A>(sum_gwn) / A(C));
        A* dv = target<A>(normed_grad, r, dx_buffer);
        const auto gradient = [&](int64_t i, int64_t n) {
          const Vec<A> hat = (load(v + i, n) - m) * r_;
          return (load(g + i, n) * load(w + i, n) - mean_gw - hat * mean_gwn) * r_;
        };
        if (extra) {
          for_vectors<A>(C, [&](int64_t i, int64_t n) {
            (gradient(i, n) + load(extra + i, n)).store(dv + i, n);
          });
        } else {
          for_vectors<A>(C, [&](int64_t i, int64_t n) { gradient(i, n).store(dv + i, n); });
        }
        write<A>(normed_grad, r, dv, C);
        d = dv;
      } else {
        d = read<A>(a.grad_sum, r, s_buffer, C);
      }
      if (!gate) continue;
      const A* y = read<A>(a.y, r, y_buffer, C);
      A* dy = target<A>(a.grad_y, r, dy_buffer);
      for_vectors<A>(C, [&](int64_t i, int64_t n) {
        const Vec<A> d_i = load(d + i, n);
        at::vec::fmadd(load(y + i, n), d_i, load(d_gate + i, n)).store(d_gate + i, n);
        (load(gate + i, n) * d_i).store(dy + i, n);
      });
      write<A>(a.grad_y, r, dy, C);
    }
  }
}

}  // namespace

void adaln_forward(const AdalnArgs& args, bool is_double, int64_t begin, int64_t end) {
  is_double ? forward<double>(args, begin, end) : forward<float>(args, begin, end);
}

void adaln_backward(const AdalnArgs& args, bool is_double, int64_t begin, int64_t end) {
  is_double ? backward<double>(args, begin, end) : backward<float>(args, begin, end);
}

}  // namespace syncflow::cpu::CPU_CAPABILITY
