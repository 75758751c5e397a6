// A row's own key and value on CUDA.
#include "attend_own.cuh"

namespace syncflow::cuda {

cudaError_t attend_own(const AttendOwnArgs& a, cudaStream_t stream) {
  if (a.R * a.N * a.H * a.D == 0) return cudaSuccess;
  with_type(a.type, [&](auto type) {
    launch(attend_own_kernel<decltype(type)>, ceil_div(a.R * a.N * a.H, kOwnWarps),
           kOwnWarps * kWarp, 0, stream, a);
  });
  return cudaGetLastError();
}

}  // namespace syncflow::cuda
