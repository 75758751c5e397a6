// Patch embedding: a few patches are gathered, multiplied by the weight and written with their
// positions, so that memory sees the latents and the tokens once.
#include "../patchify3d.h"

#include "heads.h"
#include "tile.h"

namespace syncflow::cpu::CPU_CAPABILITY {
namespace {

template <class A, class T>
void gather(const Patchify3dArgs& a, const T* x, int64_t b, int64_t t, int64_t row, int64_t column,
            A* patch) {
  int64_t k = 0;
  for (int64_t z = 0; z < a.Z; ++z)
    for (int64_t i = 0; i < a.p; ++i)
      for (int64_t j = 0; j < a.q; ++j)
        for (int64_t l = 0; l < a.r; ++l, ++k) {
          const int64_t at_t = t * a.p + i, at_h = row * a.q + j, at_w = column * a.r + l;
          const bool inside = at_t < a.T && at_h < a.H && at_w < a.W;
          patch[k] =
              inside ? static_cast<A>(x[(((b * a.Z + z) * a.T + at_t) * a.H + at_h) * a.W + at_w])
                     : A(0);
        }
}

template <class A>
void forward(const Patchify3dArgs& a, int64_t begin, int64_t end) {
  const int64_t K = a.Z * a.p * a.q * a.r;
  Scratch<A> patches_(kTileRows * K), tokens_(kTileRows * a.ld);
  A *patches = patches_.data(), *tokens = tokens_.data();
  const Packed out{const_cast<char*>(a.out), 0, 0, 0, 0, 0, a.out_dtype};
  for (int64_t task = begin; task < end; ++task) {
    const int64_t row = task % a.grid_h, t = task / a.grid_h % a.grid_t;
    const int64_t b = task / a.grid_h / a.grid_t;
    for (int64_t first = 0; first < a.grid_w; first += kTileRows) {
      const int64_t count = std::min(kTileRows, a.grid_w - first);
      for (int64_t m = 0; m < count; ++m) {
        const auto from = [&](auto* x) { gather<A>(a, x, b, t, row, first + m, patches + m * K); };
        if (a.x_dtype == c10::ScalarType::BFloat16) {
          from(reinterpret_cast<const c10::BFloat16*>(a.x));
        } else if (a.x_dtype == c10::ScalarType::Half) {
          from(reinterpret_cast<const c10::Half*>(a.x));
        } else {
          from(reinterpret_cast<const A*>(a.x));
        }
      }
      multiply<A>(count, a.ld, K, {patches, K, 1}, static_cast<const A*>(a.weight), a.ld, tokens,
                  a.ld);
      for (int64_t m = 0; m < count; ++m) {
        const int64_t place = row * a.grid_w + first + m;
        A* token = tokens + m * a.ld;
        if (a.table) {
          const A* table = static_cast<const A*>(a.table) + place * a.table_stride;
          for_vectors<A>(a.C, [&](int64_t i, int64_t n) {
            (load(token + i, n) + load(table + i, n)).store(token + i, n);
          });
        }
        const int64_t index = (b * a.grid_t + t) * a.grid_h * a.grid_w + place;
        write_head<A>(out, index * a.C, token, a.C);
      }
    }
  }
}

}  // namespace

void patchify3d_forward(const Patchify3dArgs& args, bool is_double, int64_t begin, int64_t end) {
  is_double ? forward<double>(args, begin, end) : forward<float>(args, begin, end);
}

}  // namespace syncflow::cpu::CPU_CAPABILITY
