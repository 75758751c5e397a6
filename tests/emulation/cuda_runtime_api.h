// The little of CUDA's runtime that launchers use.
#pragma once

#include <cstddef>

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

cudaError_t cudaGetLastError();
inline cudaError_t cudaDeviceSynchronize() { return cudaGetLastError(); }
cudaError_t emulation_allow_shared(int bytes);

enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device);
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int value) {
  return emulation_allow_shared(value);
}
