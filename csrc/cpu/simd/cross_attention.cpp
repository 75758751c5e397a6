// Attention of queries to another sequence, one head at a time: its keys and values stay in the
// first two caches, the scores of a block of queries in the first.
#include "../cross_attention.h"

#include "scores.h"

namespace syncflow::cpu::CPU_CAPABILITY {
namespace {

// Scores lowered by this much or more leave an exponential of zero: the key is not read at all.
constexpr double kMasked = -1e30;

// One head's keys and values as rows of A: those of a context that are not masked, then a draw's
// own.
template <class A>
class Keys {
 public:
  explicit Keys(const CrossAttentionArgs& a)
      : a_(a), ld_(padded<A>(a.D)), k_((a.M + 1) * ld_), v_((a.M + 1) * ld_), staging_(ld_) {}

  void read(int64_t b, int64_t h) {
    const A* term = a_.term ? static_cast<const A*>(a_.term) + b * a_.M : nullptr;
    kept_.clear();
    for (int64_t m = 0; m < a_.M; ++m)
      if (!term || !(term[m] <= A(kMasked))) kept_.push_back(m);
    if (kept_.empty() && !a_.own_k.data)
      for (int64_t m = 0; m < a_.M; ++m) kept_.push_back(m);
    for (size_t i = 0; i < kept_.size(); ++i) read_row(a_.k, a_.v, b, kept_[i], h, i);
    term_ = term;
  }
  void read_own(int64_t draw, int64_t h) {
    if (a_.own_k.data) read_row(a_.own_k, a_.own_v, draw, 0, h, kept_.size());
  }
  // Adds the term to the scores of `columns` queries.
  void add_term(A* scores, int64_t ld, int64_t columns) const {
    if (!term_) return;
    for (size_t i = 0; i < kept_.size(); ++i) {
      const Vec<A> by(term_[kept_[i]]);
      if (term_[kept_[i]] == 0) continue;
      for_vectors<A>(columns, [&](int64_t c, int64_t) {
        A* at = scores + i * ld + c;
        (Vec<A>::loadu(at) + by).store(at);
      });
    }
  }
  int64_t size() const { return kept_.size() + (a_.own_k.data ? 1 : 0); }
  const std::vector<int64_t>& kept() const { return kept_; }
  const A* k() { return k_.data(); }
  const A* v() { return v_.data(); }

 private:
  void read_row(const Packed& k, const Packed& v, int64_t b, int64_t m, int64_t h, int64_t row) {
    const auto copy = [&](const Packed& from, A* to) {
      copy_row<A>(read_head<A>(from, from.at(b, m, 0, 0, h), staging_.data(), a_.D), to, a_.D);
    };
    copy(k, k_.data() + row * ld_);
    copy(v, v_.data() + row * ld_);
  }

  const CrossAttentionArgs& a_;
  int64_t ld_;
  Scratch<A> k_, v_, staging_;
  std::vector<int64_t> kept_;
  const A* term_ = nullptr;
};

// A block of one head's queries, and the softmax of their scores, keys down.
template <class A>
class Block {
 public:
  static constexpr int64_t kQueries = 2 * Vec<A>::size();

  explicit Block(const CrossAttentionArgs& a)
      : a_(a),
        ld_(padded<A>(a.D)),
        rotation_(a.transform, a.N, a.D),
        q_(kQueries * ld_),
        transposed_(kQueries * ld_),
        p_((a.M + 1) * kQueries),
        staging_(ld_),
        turned_(ld_) {}

  // Queries n to n + rows of a draw, rotated and divided by sqrt(D), and their softmax.
  void attend(Keys<A>& keys, int64_t draw, int64_t h, int64_t n, int64_t rows) {
    const A factor = A(1) / std::sqrt(A(a_.D));
    for (int64_t r = 0; r < rows; ++r) {
      const A* x = read_head<A>(a_.q, a_.q.at(draw, n + r, 0, 0, h), staging_.data(), a_.D);
      transform_head<A>(a_.transform, 0, x, rotation_.cos(n + r), rotation_.sin(n + r), factor,
                        turned_.data(), q_.data() + r * ld_, a_.D);
    }
    columns_ = padded<A>(rows);
    scores(keys.k(), keys.size(), q_.data(), p_.data());
    keys.add_term(p_.data(), kQueries, columns_);
    softmax_columns<A>(p_.data(), kQueries, columns_, keys.size());
  }
  // to = rows x^T for `size` rows of keys or values, x a block like the queries.
  void scores(const A* rows, int64_t size, const A* x, A* to) {
    transpose<A>(columns_, ld_, x, ld_, transposed_.data(), kQueries);
    multiply<A>(size, columns_, a_.D, {rows, ld_, 1}, transposed_.data(), kQueries, to, kQueries);
  }
  const Rotation<A>& rotation() const { return rotation_; }
  int64_t columns() const { return columns_; }
  const A* q() { return q_.data(); }
  const A* p() { return p_.data(); }

 private:
  const CrossAttentionArgs& a_;
  int64_t ld_, columns_ = 0;
  Rotation<A> rotation_;
  Scratch<A> q_, transposed_, p_, staging_, turned_;
};

template <class A>
void forward(const CrossAttentionArgs& a, int64_t begin, int64_t end) {
  constexpr int64_t queries = Block<A>::kQueries;
  const int64_t Dp = padded<A>(a.D), chunks = (a.N + a.chunk - 1) / a.chunk;
  Keys<A> keys(a);
  Block<A> block(a);
  Scratch<A> out(queries * Dp);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t draw = task / chunks / a.H, h = task / chunks % a.H, c = task % chunks;
    const int64_t stop = std::min(a.N, (c + 1) * a.chunk);
    keys.read(draw / a.K, h);
    keys.read_own(draw, h);
    for (int64_t n = c * a.chunk; n < stop; n += queries) {
      const int64_t rows = std::min(queries, stop - n);
      block.attend(keys, draw, h, n, rows);
      multiply<A>(rows, Dp, keys.size(), {block.p(), 1, queries}, keys.v(), Dp, out.data(), Dp);
      for (int64_t r = 0; r < rows; ++r)
        write_head<A>(a.out, a.out.at(draw, n + r, 0, 0, h), out.data() + r * Dp, a.D);
    }
  }
}

// As in temporal_attention.cpp; the draws of a context add to the gradients of its keys and values.
template <class A>
void backward(const CrossAttentionArgs& a, int64_t begin, int64_t end) {
  constexpr int64_t queries = Block<A>::kQueries;
  const int64_t Dp = padded<A>(a.D);
  Keys<A> keys(a);
  Block<A> block(a);
  Scratch<A> g(queries * Dp), ds((a.M + 1) * queries), dq(queries * Dp), row(Dp);
  Scratch<A> dk((a.M + 1) * Dp), dv((a.M + 1) * Dp), zeros(Dp);
  const A factor = A(1) / std::sqrt(A(a.D));
  const auto add_block = [&](int64_t draw, int64_t h, int64_t n, int64_t rows) {
    block.attend(keys, draw, h, n, rows);
    const int64_t columns = block.columns(), size = keys.size();
    for (int64_t r = 0; r < columns; ++r)
      copy_row<A>(
          r < rows ? read_head<A>(a.grad_out, a.grad_out.at(draw, n + r, 0, 0, h), row.data(), a.D)
                   : zeros.data(),
          g.data() + r * Dp, a.D);
    block.scores(keys.v(), size, g.data(), ds.data());
    softmax_columns_backward<A>(block.p(), ds.data(), queries, columns, size);
    multiply<A, true>(size, Dp, columns, {block.p(), queries, 1}, g.data(), Dp, dv.data(), Dp);
    multiply<A, true>(size, Dp, columns, {ds.data(), queries, 1}, block.q(), Dp, dk.data(), Dp);
    multiply<A>(rows, Dp, size, {ds.data(), 1, queries}, keys.k(), Dp, dq.data(), Dp);
    for (int64_t r = 0; r < rows; ++r) {
      A* d = dq.data() + r * Dp;
      for_vectors<A>(
          Dp, [&](int64_t i, int64_t) { (Vec<A>::loadu(d + i) * Vec<A>(factor)).store(d + i); });
      const A *cos = block.rotation().cos(n + r), *sin = block.rotation().sin(n + r);
      if (cos) rotate_back(a.transform.interleaved, d, cos, sin, row.data(), a.D);
      write_head<A>(a.grad_q, a.grad_q.at(draw, n + r, 0, 0, h), cos ? row.data() : d, a.D);
    }
  };
  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / a.H, h = task % a.H;
    keys.read(b, h);
    const int64_t shared = keys.kept().size();
    std::fill_n(dk.data(), shared * Dp, A(0));
    std::fill_n(dv.data(), shared * Dp, A(0));
    for (int64_t draw = b * a.K; draw < (b + 1) * a.K; ++draw) {
      A *own_dk = dk.data() + shared * Dp, *own_dv = dv.data() + shared * Dp;
      std::fill_n(own_dk, Dp, A(0));
      std::fill_n(own_dv, Dp, A(0));
      keys.read_own(draw, h);
      for (int64_t n = 0; n < a.N; n += queries) add_block(draw, h, n, std::min(queries, a.N - n));
      if (!a.own_k.data) continue;
      write_head<A>(a.grad_own_k, a.grad_own_k.at(draw, 0, 0, 0, h), own_dk, a.D);
      write_head<A>(a.grad_own_v, a.grad_own_v.at(draw, 0, 0, 0, h), own_dv, a.D);
    }
    size_t next = 0;
    for (int64_t m = 0; m < a.M; ++m) {
      const bool kept = next < keys.kept().size() && keys.kept()[next] == m;
      const A* k = kept ? dk.data() + next * Dp : zeros.data();
      const A* v = kept ? dv.data() + next * Dp : zeros.data();
      write_head<A>(a.grad_k, a.grad_k.at(b, m, 0, 0, h), k, a.D);
      write_head<A>(a.grad_v, a.grad_v.at(b, m, 0, 0, h), v, a.D);
      next += kept;
    }
  }
}

}  // namespace

void cross_attention_forward(const CrossAttentionArgs& args, bool is_double, int64_t begin,
                             int64_t end) {
  is_double ? forward<double>(args, begin, end) : forward<float>(args, begin, end);
}

void cross_attention_backward(const CrossAttentionArgs& args, bool is_double, int64_t begin,
                              int64_t end) {
  is_double ? backward<double>(args, begin, end) : backward<float>(args, begin, end);
}

}  // namespace syncflow::cpu::CPU_CAPABILITY
