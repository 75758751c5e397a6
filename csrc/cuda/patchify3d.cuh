// Latents [B, Z, T, H, W] to tokens [B, T', S, C] (a product with K = Z p q r numbers of a patch, a
// bias and positions) and tokens back to latents.
#pragma once

#include "common.cuh"

namespace syncflow::cuda {

constexpr int kPatchThreads = 128, kPatchTokens = 16, kPatchChannels = 4;

// Number k of token n's patch; zero in the padding.
template <class T>
__device__ __forceinline__ float patch_number(const Patchify3dArgs& a, int64_t b, int64_t t,
                                              int64_t h, int64_t w, int k) {
  const int volume = a.p * a.q * a.r, z = k / volume, rest = k - z * volume;
  t = t * a.p + rest / (a.q * a.r);
  h = h * a.q + rest / a.r % a.q;
  w = w * a.r + rest % a.r;
  if (t >= a.T || h >= a.H || w >= a.W) return 0.f;
  float v[1];
  load_either<T>(a.x, a.x_is_float, (((b * a.Z + z) * a.T + t) * a.H + h) * a.W + w, v);
  return v[0];
}

// A thread owns V channels and, of K = KNOWN numbers, their weights (KNOWN = 0: any K, weights
// through the cache), for kPatchTokens tokens. budget: 128 registers, 870 instructions
template <class T, int V, int KNOWN>
__global__ void __launch_bounds__(kPatchThreads, 4) patchify3d_kernel(const Patchify3dArgs a) {
  __shared__ float patches[KNOWN ? kPatchTokens * KNOWN : 1];
  const int64_t columns = divide(a.C + kPatchThreads * V - 1, kPatchThreads * V);
  const int64_t chunk = divide(blockIdx.x, columns), column = blockIdx.x - chunk * columns;
  const int64_t c = (column * kPatchThreads + threadIdx.x) * V;
  const int64_t places = a.grid_h * a.grid_w, total = a.B * a.grid_t * places;
  const T* weight = static_cast<const T*>(a.weight);
  const int K = static_cast<int>(a.Z) * a.p * a.q * a.r;

  if constexpr (KNOWN > 0) {
    for (int i = threadIdx.x; i < kPatchTokens * KNOWN; i += kPatchThreads) {
      const int64_t n = chunk * kPatchTokens + i / KNOWN;
      if (n >= total) continue;
      const int64_t frame = divide(n, places), s = n - frame * places, h = divide(s, a.grid_w);
      const int64_t b = divide(frame, a.grid_t);
      patches[i] = patch_number<T>(a, b, frame - b * a.grid_t, h, s - h * a.grid_w, i % KNOWN);
    }
    __syncthreads();
  }
  if (c >= a.C) return;
  float w[KNOWN ? KNOWN : 1][V];
  if constexpr (KNOWN > 0) {
#pragma unroll
    for (int e = 0; e < V; ++e)
#pragma unroll
      for (int k = 0; k < KNOWN; k += 4) {
        float four[4];
        load(weight + (c + e) * KNOWN + k, four);
#pragma unroll
        for (int i = 0; i < 4; ++i) w[k + i][e] = four[i];
      }
  }
  float bias[V] = {};
  if (a.bias.data) load_either<T>(a.bias.data, a.bias.is_float, c, bias);
#pragma unroll 1
  for (int i = 0; i < kPatchTokens; ++i) {
    const int64_t n = chunk * kPatchTokens + i;
    if (n >= total) return;
    const int64_t frame = divide(n, places), s = n - frame * places;
    float out[V], position[V];
#pragma unroll
    for (int e = 0; e < V; ++e) out[e] = bias[e];
    if (a.positions.data) {
      load_either<T>(a.positions.data, a.positions.is_float, s * a.positions.stride + c, position);
#pragma unroll
      for (int e = 0; e < V; ++e) out[e] += position[e];
    }
    if constexpr (KNOWN > 0) {
#pragma unroll
      for (int k = 0; k < KNOWN; ++k)
#pragma unroll
        for (int e = 0; e < V; ++e) out[e] += w[k][e] * patches[i * KNOWN + k];
    } else {
      const int64_t h = divide(s, a.grid_w), b = divide(frame, a.grid_t);
      for (int k = 0; k < K; ++k) {
        const float x = patch_number<T>(a, b, frame - b * a.grid_t, h, s - h * a.grid_w, k);
#pragma unroll
        for (int e = 0; e < V; ++e) out[e] += load_one(weight + (c + e) * K + k) * x;
      }
    }
    store(static_cast<T*>(a.out) + n * a.C + c, out);
  }
}

// One thread per latent number; the tokens' last axis holds (p, q, r, stored channels).
// budget: 64 registers, 550 instructions
template <class T>
__global__ void __launch_bounds__(256) unpatchify3d_kernel(const Patchify3dArgs a) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (index >= a.B * a.Z * a.T * a.H * a.W) return;
  int64_t rest = index, next = divide(rest, a.W);
  const int64_t w = rest - next * a.W;
  rest = next, next = divide(rest, a.H);
  const int64_t h = rest - next * a.H;
  rest = next, next = divide(rest, a.T);
  const int64_t t = rest - next * a.T, b = divide(next, a.Z), z = next - b * a.Z;
  const int64_t pt = divide(t, a.p), ph = divide(h, a.q), pw = divide(w, a.r);
  const int64_t token = ((b * a.grid_t + pt) * a.grid_h + ph) * a.grid_w + pw;
  const int64_t inside = ((t - pt * a.p) * a.q + (h - ph * a.q)) * a.r + (w - pw * a.r);
  const int64_t at = (token * a.p * a.q * a.r + inside) * a.stored + z;
  store_one(static_cast<float*>(a.out) + index, load_one(static_cast<const T*>(a.x) + at));
}

}  // namespace syncflow::cuda
