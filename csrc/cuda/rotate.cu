// Rotary positions on CUDA: vectors where rows allow them.
#include "rotate.cuh"

namespace syncflow::cuda {
namespace {

bool strides_fit(const HeadStrides& s) { return s.b % 4 == 0 && s.n % 4 == 0 && s.h % 4 == 0; }

// Four pairs at a time: 8 bytes of 16-bit halves, 16 of anything else.
bool vectors_fit(const RotateArgs& a) {
  return a.D % 8 == 0 && strides_fit(a.x_strides) && strides_fit(a.out_strides) && aligned16(a.x) &&
         aligned16(a.out) && aligned16(a.rotation) &&
         // An interleaved vector is twice as long.
         (!a.interleaved ||
          (a.x_strides.b % 8 == 0 && a.x_strides.n % 8 == 0 && a.x_strides.h % 8 == 0 &&
           a.out_strides.b % 8 == 0 && a.out_strides.n % 8 == 0 && a.out_strides.h % 8 == 0));
}

template <class T, int V>
void run(const RotateArgs& a, cudaStream_t stream) {
  auto* kernel = a.interleaved ? rotate_kernel<T, V, true> : rotate_kernel<T, V, false>;
  launch(kernel, ceil_div(a.B * a.N * a.H * (a.D / 2 / V), kRotateThreads), kRotateThreads, 0,
         stream, a);
}

}  // namespace

cudaError_t rotate(const RotateArgs& a, cudaStream_t stream) {
  if (a.B * a.N * a.H * a.D == 0) return cudaSuccess;
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    if (vectors_fit(a))
      run<T, 4>(a, stream);
    else
      run<T, 1>(a, stream);
  });
  return cudaGetLastError();
}

}  // namespace syncflow::cuda
