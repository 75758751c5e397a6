// Group normalisation on CUDA: vectors where rows allow them, and the grid.
#include "group_norm.cuh"

namespace syncflow::cuda {
namespace {

// Blocks of a pass: four on each of an H100's multiprocessors, twice; see adaln.cu.
constexpr int64_t kGroupBlocks = 2 * 4 * 132;

bool vectors_fit(const GroupNormArgs& a) {
  const int64_t width = a.type == DType::kFloat ? 4 : 8;
  return a.C % width == 0 && aligned16(a.x) && aligned16(a.add) && aligned16(a.sum) &&
         aligned16(a.out) && aligned16(a.before.data) && aligned16(a.coefficients);
}

template <class T, int V>
void run(const GroupNormArgs& a, cudaStream_t stream) {
  const int64_t blocks = a.N * a.chunks, columns = a.C / V;
  const int64_t rows = columns > kGroupThreads ? 1 : kGroupThreads / columns;
  const int64_t shared = 2 * rows * a.C * static_cast<int64_t>(sizeof(float));
  auto* statistics = a.width ? group_statistics_kernel<T, V, Sum::kPhases>
                     : a.sum ? group_statistics_kernel<T, V, Sum::kStored>
                             : group_statistics_kernel<T, V, Sum::kNone>;
  launch(statistics, blocks, kGroupThreads, shared, stream, a);
  launch(group_coefficients_kernel<T>, ceil_div(a.N * a.groups, kGroupThreads / kWarp),
         kGroupThreads, 0, stream, a);
  launch(group_apply_kernel<T, V>, blocks, kGroupThreads, 0, stream, a);
}

}  // namespace

int64_t group_norm_chunks(int64_t N, int64_t L, int64_t C) {
  // As many for vectors as without: of the shape alone. A chunk has at least 4 places for every
  // thread that works on 8 channels.
  const int64_t least = 4 * (C >= 8 * kGroupThreads ? 1 : kGroupThreads / ceil_div(C, 8));
  const int64_t wanted = ceil_div(kGroupBlocks, N < 1 ? 1 : N), most = ceil_div(L, least);
  const int64_t chunks = wanted < most ? wanted : most;
  return chunks < 1 ? 1 : ceil_div(L, ceil_div(L, chunks));
}

cudaError_t group_norm(const GroupNormArgs& a, cudaStream_t stream) {
  if (a.N * a.L * a.C == 0) return cudaSuccess;
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    if (vectors_fit(a))
      run<T, 16 / sizeof(T)>(a, stream);
    else
      run<T, 1>(a, stream);
  });
  return cudaGetLastError();
}

}  // namespace syncflow::cuda
