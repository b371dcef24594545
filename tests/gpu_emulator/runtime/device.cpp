// What the device is, and the functions of the driver that it has.
#include <cuda.h>

#include <cstdio>
#include <cstring>

#include "runtime/runtime.h"

namespace emu {
namespace {

CUresult driver_error_string(CUresult, const char** text) {
  *text = "an error of the emulated driver";
  return CUDA_SUCCESS;
}

cudaError_t entry_point(const char* symbol, void** pointer, cudaDriverEntryPointQueryResult* status) {
  *pointer = nullptr;
  if (!std::strcmp(symbol, "cuTensorMapEncodeTiled")) *pointer = tensor_map_encoder();
  if (!std::strcmp(symbol, "cuGetErrorString") || !std::strcmp(symbol, "cuGetErrorName"))
    *pointer = reinterpret_cast<void*>(&driver_error_string);
  if (status) *status = *pointer ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  if (!*pointer) std::fprintf(stderr, "[gpu emulator] the driver function %s is not modelled\n", symbol);
  return *pointer ? cudaSuccess : result(cudaErrorSymbolNotFound);
}

}  // namespace

}  // namespace emu

using namespace emu;

#pragma GCC visibility push(default)
extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : result(cudaErrorInvalidDevice); }
cudaError_t cudaDeviceSynchronize() {
  return runtime().captures ? result(cudaErrorStreamCaptureUnsupported) : synchronise();
}
cudaError_t cudaDeviceReset() { return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device != 0) return result(cudaErrorInvalidDevice);
  const Runtime& r = runtime();
  std::memset(p, 0, sizeof *p);
  std::snprintf(p->name, sizeof p->name, "Emulated GPU, compute capability %d.%d", r.capability / 10,
                r.capability % 10);
  p->major = r.capability / 10, p->minor = r.capability % 10;
  p->totalGlobalMem = size_t{80} << 30;
  p->multiProcessorCount = r.sm_count;
  p->sharedMemPerBlock = 48 * 1024;
  p->sharedMemPerBlockOptin = shared_limit();
  p->sharedMemPerMultiprocessor = shared_limit() + 1024;
  p->reservedSharedMemPerBlock = 1024;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024, p->maxThreadsPerMultiProcessor = 2048, p->maxBlocksPerMultiProcessor = 32;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 0x7fffffff, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->l2CacheSize = 50 << 20;
  p->memoryBusWidth = 5120;
  p->concurrentKernels = 1;
  p->clusterLaunch = r.capability >= 90;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  if (const cudaError_t error = cudaGetDeviceProperties(&p, device); error != cudaSuccess) return error;
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = p.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = p.minor;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = p.multiProcessorCount;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(p.sharedMemPerBlockOptin);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = static_cast<int>(p.sharedMemPerBlock);
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(p.sharedMemPerMultiprocessor);
      break;
    case cudaDevAttrWarpSize:
      *value = 32;
      break;
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = 2048;
      break;
    case cudaDevAttrMaxGridDimX:
      *value = 0x7fffffff;
      break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      *value = 65535;
      break;
    case cudaDevAttrL2CacheSize:
      *value = p.l2CacheSize;
      break;
    case cudaDevAttrClockRate:
      *value = 1755000;
      break;
    case cudaDevAttrMemoryClockRate:
      *value = 2619000;
      break;
    case cudaDevAttrGlobalMemoryBusWidth:
      *value = p.memoryBusWidth;
      break;
    case cudaDevAttrClusterLaunch:
      *value = p.clusterLaunch;
      break;
    case cudaDevAttrCooperativeLaunch:
      *value = 0;
      break;
    default:
      std::fprintf(stderr, "[gpu emulator] device attribute %d is not modelled\n", static_cast<int>(attribute));
      return result(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** pointer, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* status) {
  return entry_point(symbol, pointer, status);
}
cudaError_t cudaGetDriverEntryPoint(const char* symbol, void** pointer, unsigned long long,
                                    cudaDriverEntryPointQueryResult* status) {
  return entry_point(symbol, pointer, status);
}

}  // extern "C"
#pragma GCC visibility pop
