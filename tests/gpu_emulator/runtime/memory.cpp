// Device memory and copies.
#include <cstdlib>
#include <cstring>

#include "machine/options.h"
#include "runtime/runtime.h"

namespace emu {
namespace {

// Device memory in a copy must be inside an allocation.
bool device_range(const void* pointer, size_t bytes) {
  Allocation* a = runtime().memory.find(reinterpret_cast<u64>(pointer));
  return bytes == 0 || (a && reinterpret_cast<u64>(pointer) - a->base + bytes <= a->bytes);
}

cudaError_t check_copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if ((to_device && !device_range(to, bytes)) || (from_device && !device_range(from, bytes)))
    return cudaErrorInvalidValue;
  return cudaSuccess;
}

void copy_now(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;  // the pointers may be null
  std::memmove(to, from, bytes);
  runtime().memory.mark(reinterpret_cast<u64>(to), bytes, true);
}

void set_now(void* to, int value, size_t bytes) {
  if (bytes == 0) return;
  std::memset(to, value, bytes);
  Allocation* a = runtime().memory.find(reinterpret_cast<u64>(to));
  // Tests fill fresh arrays with 0xff so that nothing valid is in them; reading that is an error.
  const bool poison = Options::get().poison_is_uninitialised && (value & 0xff) == 0xff && a &&
                      a->base == reinterpret_cast<u64>(to) && bytes + 1 >= a->bytes;
  runtime().memory.mark(reinterpret_cast<u64>(to), bytes, !poison);
}

}  // namespace

}  // namespace emu

using namespace emu;

#pragma GCC visibility push(default)
extern "C" {

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  if (runtime().captures > 0) return result(cudaErrorStreamCaptureUnsupported);
  *pointer = bytes ? reinterpret_cast<void*>(runtime().memory.allocate(bytes, "cudaMalloc")) : nullptr;
  return bytes && !*pointer ? result(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
  if (!pointer) return cudaSuccess;
  return runtime().memory.release(reinterpret_cast<u64>(pointer)) ? cudaSuccess : result(cudaErrorInvalidValue);
}
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t) { return cudaMalloc(pointer, bytes); }
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) { return cudaFree(pointer); }
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  *pointer = std::malloc(bytes);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (const cudaError_t error = check_copy(to, from, bytes, kind); error != cudaSuccess) return result(error);
  return on_stream(stream, [=] { copy_now(to, from, bytes); });
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  // A copy between host and device on the null stream joins a capture in global mode only as an error.
  if (const cudaError_t error = check_copy(to, from, bytes, kind); error != cudaSuccess) return result(error);
  const cudaError_t error = on_stream(nullptr, [=] { copy_now(to, from, bytes); });
  return error != cudaSuccess ? error : synchronise();
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  if (!device_range(to, bytes)) return result(cudaErrorInvalidValue);
  return on_stream(stream, [=] { set_now(to, value, bytes); });
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) { return cudaMemsetAsync(to, value, bytes, nullptr); }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = size_t{80} << 30;
  *free = *total - runtime().memory.total();
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  std::memset(attributes, 0, sizeof *attributes);
  const bool device = runtime().memory.find(reinterpret_cast<u64>(pointer)) != nullptr;
  attributes->type = device ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  attributes->devicePointer = device ? const_cast<void*>(pointer) : nullptr;
  attributes->hostPointer = device ? nullptr : const_cast<void*>(pointer);
  return cudaSuccess;
}

}  // extern "C"
#pragma GCC visibility pop
