// What every kernel uses: element types, vectors of them in memory, sums over a warp, launching.
//
// No torch header is included in any .cuh or .cu: nvcc compiles them in seconds, and the host
// compiler compiles the same files against tests/emulation, where read() and write() check every
// access. Kernels therefore touch global memory through load() and store() alone.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "args.h"

#ifdef __CUDACC__
#define SYNCFLOW_DYNAMIC_SHARED(type, name)          \
  extern __shared__ __align__(16) char name##_raw[]; \
  type* name = reinterpret_cast<type*>(name##_raw)
#else
#include "emulation.h"
#define SYNCFLOW_DYNAMIC_SHARED(type, name) \
  type* name = static_cast<type*>(::emulation::dynamic_shared())
#endif

namespace syncflow::cuda {

using bf16 = __nv_bfloat16;
using fp16 = __half;

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Memory

template <class Word>
__device__ __forceinline__ Word read(const void* p) {
#ifdef __CUDACC__
  return *static_cast<const Word*>(p);
#else
  return ::emulation::read<Word>(p);
#endif
}

template <class Word>
__device__ __forceinline__ void write(void* p, const Word& word) {
#ifdef __CUDACC__
  // Left to itself the compiler splits some stores of 16 and of 8 bytes.
  if constexpr (__is_same(Word, uint4))
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)),
                 "r"(word.x), "r"(word.y), "r"(word.z), "r"(word.w));
  else if constexpr (__is_same(Word, uint2))
    asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(p)), "r"(word.x),
                 "r"(word.y));
  else
    *static_cast<Word*>(p) = word;
#else
  ::emulation::write<Word>(p, word);
#endif
}

template <class To, class From>
__device__ __forceinline__ To bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

// Two 16-bit numbers in one register, the first in the low half.
template <class T>
struct Pair;

template <>
struct Pair<bf16> {
  static __device__ __forceinline__ float2 unpack(uint32_t w) {
    return {bits<float>(w << 16), bits<float>(w & 0xffff0000u)};
  }
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    return bits<uint32_t>(__floats2bfloat162_rn(low, high));
  }
};

template <>
struct Pair<fp16> {
  static __device__ __forceinline__ float2 unpack(uint32_t w) {
    return __half22float2(bits<__half2>(w));
  }
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    return bits<uint32_t>(__floats2half2_rn(low, high));
  }
};

// V numbers as they lie in memory, in registers of 32 bits (16 for a single narrow one).
template <int Bytes>
struct Words {
  uint32_t w[Bytes / 4];
};
template <>
struct Words<2> {
  uint16_t w[1];
};

template <int Bytes>
__device__ __forceinline__ Words<Bytes> load_words(const void* p) {
  Words<Bytes> r;
  if constexpr (Bytes >= 16) {
#pragma unroll
    for (int i = 0; i < Bytes / 16; ++i) {
      const uint4 q = read<uint4>(static_cast<const char*>(p) + 16 * i);
      r.w[4 * i] = q.x, r.w[4 * i + 1] = q.y, r.w[4 * i + 2] = q.z, r.w[4 * i + 3] = q.w;
    }
  } else if constexpr (Bytes == 8) {
    const uint2 q = read<uint2>(p);
    r.w[0] = q.x, r.w[1] = q.y;
  } else if constexpr (Bytes == 4) {
    r.w[0] = read<uint32_t>(p);
  } else {
    r.w[0] = read<uint16_t>(p);
  }
  return r;
}

template <int Bytes>
__device__ __forceinline__ void store_words(void* p, const Words<Bytes>& r) {
  if constexpr (Bytes >= 16) {
#pragma unroll
    for (int i = 0; i < Bytes / 16; ++i)
      write(static_cast<char*>(p) + 16 * i,
            uint4{r.w[4 * i], r.w[4 * i + 1], r.w[4 * i + 2], r.w[4 * i + 3]});
  } else if constexpr (Bytes == 8) {
    write(p, uint2{r.w[0], r.w[1]});
  } else if constexpr (Bytes == 4) {
    write(p, r.w[0]);
  } else {
    write(p, r.w[0]);
  }
}

template <class T>
__device__ __forceinline__ float to_float(uint16_t w) {
  return Pair<T>::unpack(w).x;
}

template <class T>
__device__ __forceinline__ float rounded(float v) {
  if constexpr (sizeof(T) == 4)
    return v;
  else
    return Pair<T>::unpack(Pair<T>::pack(v, 0.f)).x;
}

template <class T, int V>
__device__ __forceinline__ void unpack(const Words<V * sizeof(T)>& words, float (&v)[V]) {
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] = bits<float>(words.w[i]);
  } else if constexpr (V == 1) {
    v[0] = to_float<T>(words.w[0]);
  } else {
#pragma unroll
    for (int i = 0; i < V / 2; ++i) {
      const float2 two = Pair<T>::unpack(words.w[i]);
      v[2 * i] = two.x, v[2 * i + 1] = two.y;
    }
  }
}

template <class T, int V>
__device__ __forceinline__ void load(const T* p, float (&v)[V]) {
  unpack<T, V>(load_words<V * sizeof(T)>(p), v);
}

template <class T, int V>
__device__ __forceinline__ void store(T* p, const float (&v)[V]) {
  Words<V * sizeof(T)> words;
  if constexpr (sizeof(T) == 4 && V == 2) {
    write(p, float2{v[0], v[1]});  // these it does not split, and knows how to address together
    return;
  } else if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < V; ++i) words.w[i] = bits<uint32_t>(v[i]);
  } else if constexpr (V == 1) {
    words.w[0] = static_cast<uint16_t>(Pair<T>::pack(v[0], 0.f));
  } else {
#pragma unroll
    for (int i = 0; i < V / 2; ++i) words.w[i] = Pair<T>::pack(v[2 * i], v[2 * i + 1]);
  }
  store_words<V * sizeof(T)>(p, words);
}

template <class T>
__device__ __forceinline__ float load_one(const T* p) {
  float v[1];
  load(p, v);
  return v[0];
}

template <class T>
__device__ __forceinline__ void store_one(T* p, float value) {
  const float v[1] = {value};
  store(p, v);
}

// Small operands (modulations, weights) keep a type of their own, told at run time: all threads
// take the same branch, and the number of kernels stays the number of token types.
template <class T, int V>
__device__ __forceinline__ void load_either(const void* p, bool is_float, int64_t index,
                                            float (&v)[V]) {
  if constexpr (sizeof(T) == 4) {
    load(static_cast<const float*>(p) + index, v);
  } else {
    if (is_float)
      load(static_cast<const float*>(p) + index, v);
    else
      load(static_cast<const T*>(p) + index, v);
  }
}

// Arithmetic of 16-bit results: 2^-21 or so of error is far below their rounding.

template <class T>
__device__ __forceinline__ float exponential(float v) {
#ifdef __CUDACC__
  if constexpr (sizeof(T) == 2) return __expf(v);
#endif
  return expf(v);
}

template <class T>
__device__ __forceinline__ float inverse(float v) {
#ifdef __CUDACC__
  if constexpr (sizeof(T) == 2) return __fdividef(1.f, v);
#endif
  return 1.f / v;
}

// a b rounded: never one operation with a sum, where what remains of a difference is that rounding.
__device__ __forceinline__ float product(float a, float b) {
#ifdef __CUDACC__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

// Warps

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int step = kWarp / 2; step; step /= 2) v += __shfl_xor_sync(kAllLanes, v, step);
  return v;
}

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int step = kWarp / 2; step; step /= 2) v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, step));
  return v;
}

// a / b for counts; a 64-bit division costs as much as the rest of a small kernel's arithmetic.
__device__ __forceinline__ int64_t divide(int64_t a, int64_t b) {
  if ((a | b) >> 32) return a / b;
  return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
}

// Host

// Dynamic shared memory of a block. kSharedDefault: what every kernel may have. kSharedPlanned: what a
// device of compute capability 8.0 gives a block that asks; sums are shared out as if every device
// did, so that their order depends on the shape alone.
constexpr int64_t kSharedDefault = 48 * 1024;
constexpr int64_t kSharedPlanned = 163 * 1024;

// What the current device gives a block that asks: 99 KB on 8.6, 8.9 and 12.0, 227 KB on 9.0.
inline int64_t shared_limit() {
  int device = 0, bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
          cudaSuccess)
    return kSharedDefault;
  return bytes;
}

template <class Kernel>
void allow_shared(Kernel* kernel, int64_t bytes) {
  if (bytes > kSharedDefault)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(bytes));
}

template <class... Params, class... Args>
void launch(void (*kernel)(Params...), int64_t blocks, int threads, size_t shared,
            cudaStream_t stream, const Args&... args) {
#ifdef __CUDACC__
  kernel<<<dim3(static_cast<unsigned>(blocks)), threads, shared, stream>>>(args...);
#else
  ::emulation::launch([&] { kernel(args...); }, blocks, threads, shared);
#endif
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Calls f(T{}) with the element type. SYNCFLOW_BF16_ONLY: a quick build to look at, not to ship.
template <class F>
void with_type(DType type, F&& f) {
  if (type == DType::kBFloat16) f(bf16{});
#ifndef SYNCFLOW_BF16_ONLY
  if (type == DType::kFloat) f(float{});
  if (type == DType::kHalf) f(fp16{});
#endif
}

// Head dimensions with kernels for the tensor cores; others have general kernels. A build for one
// model may name fewer: -DSYNCFLOW_HEADS=72.
#ifndef SYNCFLOW_HEADS
#define SYNCFLOW_HEADS 32, 48, 64, 72, 80, 96, 128
#endif

template <int N>
struct Head {
  static constexpr int D = N;
};

template <int... DS>
struct HeadList {
  template <class F>
  static bool pick(int64_t D, F&& f) {
    return ((D == DS && (f(Head<DS>{}), true)) || ...);
  }
};

// Calls f(Head<D>{}) if D is one of SYNCFLOW_HEADS; returns whether it is.
template <class F>
bool with_head(int64_t D, F&& f) {
  return HeadList<SYNCFLOW_HEADS>::pick(D, f);
}

inline bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace syncflow::cuda
