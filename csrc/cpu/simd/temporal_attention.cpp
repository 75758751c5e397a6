// Attention along time, one head of one place at a time: all of it stays in the first-level cache.
#include "../temporal_attention.h"

#include <cmath>

#include "scores.h"

namespace syncflow::cpu::CPU_CAPABILITY {
namespace {

// Rows whose gradients of the gains are added up before they join the chunk's.
constexpr int64_t kSummedRows = 16;

struct Item {
  int64_t b, s, h;
};

Item item_at(const PackedSizes& z, int64_t index) {
  return {index / z.H / z.S, index / z.H % z.S, index % z.H};
}

// Rows of one head lie a frame apart, too far for the hardware to guess: ask for an item's rows while
// the item before it is computed.
void prefetch_item(const PackedSizes& z, const Packed& x, int parts, int64_t index) {
  if (index >= z.B * z.S * z.H) return;
  const auto [b, s, h] = item_at(z, index);
  const int64_t size = c10::elementSize(x.dtype), bytes = z.D * size;
  for (int64_t t = 0; t < z.T; ++t)
    for (int part = 0; part < parts; ++part) {
      const char* row = x.data + x.at(b, t, s, part, h) * size;
      for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(row + i);
    }
}

template <class A>
void forward(const TemporalAttentionArgs& a, int64_t begin, int64_t end) {
  constexpr int64_t width = Vec<A>::size();
  const auto& [B, T, S, H, D] = a.sizes;
  const int64_t Dp = padded<A>(D), Tp = padded<A>(T);
  // Queries at a time: their scores stay in the first-level cache.
  const int64_t block = std::min<int64_t>(Tp, 2 * width);
  const Rotation<A> rotation(a.transform, T, D);
  Scratch<A> q_(Tp * Dp), k_(T * Dp), v_(T * Dp), q_t_(Dp * Tp), p_(T * block), out_(block * Dp);
  Scratch<A> staging_(Dp), normed_(Dp);
  A *q = q_.data(), *k = k_.data(), *v = v_.data(), *q_t = q_t_.data(), *p = p_.data();
  A* out = out_.data();
  const A factor = A(1) / std::sqrt(A(D));
  for (int64_t index = begin * a.chunk; index < std::min(end * a.chunk, B * S * H); ++index) {
    const auto [b, s, h] = item_at(a.sizes, index);
    prefetch_item(a.sizes, a.qkv, 3, index + 1);
    for (int64_t t = 0; t < T; ++t) {
      const auto at = [&](int part) {
        return read_head<A>(a.qkv, a.qkv.at(b, t, s, part, h), staging_.data(), D);
      };
      const auto turn = [&](int which, A scale, A* to) {
        transform_head<A>(a.transform, which, at(which), rotation.cos(t), rotation.sin(t), scale,
                          normed_.data(), to + t * Dp, D);
      };
      turn(0, factor, q);
      turn(1, A(1), k);
      copy_row<A>(at(2), v + t * Dp, D);
    }
    transpose<A>(Tp, Dp, q, Dp, q_t, Tp);
    for (int64_t t = 0; t < T; t += block) {
      const int64_t columns = std::min(block, Tp - t), rows = std::min(block, T - t);
      multiply<A>(T, columns, D, {k, Dp, 1}, q_t + t, Tp, p, block);
      softmax_columns<A>(p, block, columns, T);
      multiply<A>(rows, Dp, T, {p, 1, block}, v, Dp, out, Dp);
      for (int64_t r = 0; r < rows; ++r)
        write_head<A>(a.out, a.out.at(b, t + r, s, 0, h), out + r * Dp, D);
    }
  }
}

// With P = softmax(q k^T) for the transformed q (scaled by 1 / sqrt(D)) and k:
//   dP = dO v^T,  dS = P (dP - rowsum(P dP)),  dv = P^T dO,  dq = dS k / sqrt(D),  dk = dS^T q
// P and dS lie with keys down, as in `softmax_columns`.
template <class A>
void backward(const TemporalAttentionArgs& a, int64_t begin, int64_t end) {
  const auto& [B, T, S, H, D] = a.sizes;
  const int64_t Dp = padded<A>(D), Tp = padded<A>(T);
  const Rotation<A> rotation(a.transform, T, D);
  Scratch<A> q_(Tp * Dp), k_(T * Dp), v_(T * Dp), g_(Tp * Dp), transposed_(Dp * Tp);
  Scratch<A> p_(T * Tp), ds_(T * Tp), result_(T * Dp);
  Scratch<A> raw_(Dp), normed_(Dp), row_(Dp);
  A *q = q_.data(), *k = k_.data(), *v = v_.data(), *g = g_.data(), *p = p_.data();
  A *ds = ds_.data(), *result = result_.data(), *transposed = transposed_.data();
  GainSums<A> d_weight(D);
  const A factor = A(1) / std::sqrt(A(D));
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    for (int64_t index = chunk * a.chunk; index < std::min((chunk + 1) * a.chunk, B * S * H);
         ++index) {
      const auto [b, s, h] = item_at(a.sizes, index);
      prefetch_item(a.sizes, a.qkv, 3, index + 1);
      prefetch_item(a.sizes, a.grad_out, 1, index + 1);
      const auto at = [&](int64_t t, int part) {
        return read_head<A>(a.qkv, a.qkv.at(b, t, s, part, h), raw_.data(), D);
      };
      for (int64_t t = 0; t < T; ++t) {
        const auto turn = [&](int which, A scale, A* to) {
          transform_head<A>(a.transform, which, at(t, which), rotation.cos(t), rotation.sin(t),
                            scale, normed_.data(), to + t * Dp, D);
        };
        turn(0, factor, q);
        turn(1, A(1), k);
        copy_row<A>(at(t, 2), v + t * Dp, D);
        copy_row<A>(read_head<A>(a.grad_out, a.grad_out.at(b, t, s, 0, h), row_.data(), D),
                    g + t * Dp, D);
      }
      transpose<A>(Tp, Dp, q, Dp, transposed, Tp);
      multiply<A>(T, Tp, D, {k, Dp, 1}, transposed, Tp, p, Tp);
      softmax_columns<A>(p, Tp, Tp, T);
      transpose<A>(Tp, Dp, g, Dp, transposed, Tp);
      multiply<A>(T, Tp, D, {v, Dp, 1}, transposed, Tp, ds, Tp);
      softmax_columns_backward<A>(p, ds, Tp, Tp, T);
      const auto write = [&](int part, int64_t t, const A* row) {
        write_head<A>(a.grad_qkv, a.grad_qkv.at(b, t, s, part, h), row, D);
      };
      A* totals = static_cast<A*>(a.partial) + chunk * 2 * D;
      const auto turn_back = [&](int which) {
        for (int64_t t = 0; t < T; ++t) {
          if (t % kSummedRows == 0) d_weight.add_to(totals);
          transform_head_backward<A>(a.transform, which, at(t, which), result + t * Dp,
                                     rotation.cos(t), rotation.sin(t), d_weight[which],
                                     normed_.data(), row_.data(), D);
          write(which, t, row_.data());
        }
      };
      multiply<A>(T, Dp, T, {p, Tp, 1}, g, Dp, result, Dp);
      for (int64_t t = 0; t < T; ++t) write(2, t, result + t * Dp);
      multiply<A>(T, Dp, T, {ds, Tp, 1}, q, Dp, result, Dp);
      turn_back(1);
      multiply<A>(T, Dp, T, {ds, 1, Tp}, k, Dp, result, Dp);
      for_vectors<A>(T * Dp, [&](int64_t i, int64_t) {
        (Vec<A>::loadu(result + i) * Vec<A>(factor)).store(result + i);
      });
      turn_back(0);
      d_weight.add_to(totals);
    }
  }
}

}  // namespace

void temporal_attention_forward(const TemporalAttentionArgs& args, bool is_double, int64_t begin,
                                int64_t end) {
  is_double ? forward<double>(args, begin, end) : forward<float>(args, begin, end);
}

void temporal_attention_backward(const TemporalAttentionArgs& args, bool is_double, int64_t begin,
                                 int64_t end) {
  is_double ? backward<double>(args, begin, end) : backward<float>(args, begin, end);
}

}  // namespace syncflow::cpu::CPU_CAPABILITY
