// Matrix products of a size that stays in the first-level cache: for one head at a time, where a
// call to a library costs more than the product.
#pragma once

#include "vectors.h"

namespace syncflow::cpu::CPU_CAPABILITY {
namespace {

// Rows of c that one pass keeps in registers beside two vectors of columns, and beside one.
#ifdef CPU_CAPABILITY_AVX512
constexpr int64_t kTileRows = 8;
#else
constexpr int64_t kTileRows = 4;
#endif
constexpr int64_t kNarrowTileRows = 8;

// a(m, k) lies at data[m * row + k * column]: a matrix or its transpose.
template <class A>
struct Left {
  const A* data;
  int64_t row, column;
};

template <class A, int64_t R, int64_t N, bool Adds>
inline void tile(int64_t K, const A* a, int64_t row, int64_t column, const A* b, int64_t ldb, A* c,
                 int64_t ldc) {
  constexpr int64_t width = Vec<A>::size();
#if defined(SYNCFLOW_X86) && !defined(CPU_CAPABILITY_AVX2) && !defined(CPU_CAPABILITY_AVX512)
  // No fused multiply-add here: rounding every product lost three times the digits that eager does.
  double sums[R][N * width];
  for (int64_t r = 0; r < R; ++r)
    for (int64_t n = 0; n < N * width; ++n) sums[r][n] = Adds ? c[r * ldc + n] : 0;
  for (int64_t k = 0; k < K; ++k)
    for (int64_t r = 0; r < R; ++r) {
      const double left = a[r * row + k * column];
      for (int64_t n = 0; n < N * width; ++n) sums[r][n] += left * b[k * ldb + n];
    }
  for (int64_t r = 0; r < R; ++r)
    for (int64_t n = 0; n < N * width; ++n) c[r * ldc + n] = static_cast<A>(sums[r][n]);
#else
  Vec<A> sums[R][N];
  for (int64_t r = 0; r < R; ++r)
    for (int64_t n = 0; n < N; ++n)
      sums[r][n] = Adds ? Vec<A>::loadu(c + r * ldc + n * width) : Vec<A>(0);
  for (int64_t k = 0; k < K; ++k) {
    Vec<A> right[N];
    for (int64_t n = 0; n < N; ++n) right[n] = Vec<A>::loadu(b + k * ldb + n * width);
    for (int64_t r = 0; r < R; ++r) {
      const Vec<A> left(a[r * row + k * column]);
      for (int64_t n = 0; n < N; ++n) sums[r][n] = at::vec::fmadd(left, right[n], sums[r][n]);
    }
  }
  for (int64_t r = 0; r < R; ++r)
    for (int64_t n = 0; n < N; ++n) sums[r][n].store(c + r * ldc + n * width);
#endif
}

template <class A, int64_t N, bool Adds>
inline void column_of_tiles(int64_t M, int64_t K, Left<A> a, const A* b, int64_t ldb, A* c,
                            int64_t ldc) {
  constexpr int64_t rows = N == 1 ? kNarrowTileRows : kTileRows;
  int64_t m = 0;
  const auto at = [&] { return a.data + m * a.row; };
  for (; m + rows <= M; m += rows)
    tile<A, rows, N, Adds>(K, at(), a.row, a.column, b, ldb, c + m * ldc, ldc);
  if constexpr (rows > 4)
    for (; m + 4 <= M; m += 4)
      tile<A, 4, N, Adds>(K, at(), a.row, a.column, b, ldb, c + m * ldc, ldc);
  for (; m + 2 <= M; m += 2)
    tile<A, 2, N, Adds>(K, at(), a.row, a.column, b, ldb, c + m * ldc, ldc);
  if (m < M) tile<A, 1, N, Adds>(K, at(), a.row, a.column, b, ldb, c + m * ldc, ldc);
}

// c = a b, or c += a b, for a [M, K], b [K, N]; N is a whole number of vectors, and b's and c's rows
// reach that far.
template <class A, bool Adds = false>
inline void multiply(int64_t M, int64_t N, int64_t K, Left<A> a, const A* b, int64_t ldb, A* c,
                     int64_t ldc) {
  constexpr int64_t width = Vec<A>::size();
  int64_t n = 0;
  for (; n + 2 * width <= N; n += 2 * width)
    column_of_tiles<A, 2, Adds>(M, K, a, b + n, ldb, c + n, ldc);
  if (n < N) column_of_tiles<A, 1, Adds>(M, K, a, b + n, ldb, c + n, ldc);
}

// to[n, m] = from[m, n] for M and N of whole vectors: partial blocks would cost more than the zeros.
template <class A>
inline void transpose(int64_t M, int64_t N, const A* from, int64_t ld_from, A* to, int64_t ld_to) {
  if constexpr (std::is_same_v<A, float>) {
    constexpr int64_t width = Vec<A>::size();
    for (int64_t m = 0; m < M; m += width)
      for (int64_t n = 0; n < N; n += width)
        at::vec::transpose_mxn<float, width, width>(from + m * ld_from + n, ld_from,
                                                    to + n * ld_to + m, ld_to);
  } else {
    for (int64_t m = 0; m < M; ++m)
      for (int64_t n = 0; n < N; ++n) to[n * ld_to + m] = from[m * ld_from + n];
  }
}

}  // namespace
}  // namespace syncflow::cpu::CPU_CAPABILITY
