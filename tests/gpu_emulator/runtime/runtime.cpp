// The runtime's state, its errors, and the end of the process.
#include "runtime/runtime.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "runtime/report.h"

namespace emu {
namespace {

// No violation gets lost, even where no test asked for it.
void at_exit() {
  report_totals();
  const u64 n = runtime().violations;
  if (n)
    std::fprintf(stderr, "[gpu emulator] %llu launches stopped at a violation\n", static_cast<unsigned long long>(n));
  const char* strict = std::getenv("GPU_EMULATOR_STRICT");
  if (n && strict && *strict == '1') {
    std::fflush(nullptr);
    _exit(3);
  }
}

}  // namespace

Runtime::Runtime() {
  if (const char* text = std::getenv("GPU_EMULATOR_CAPABILITY"); text && *text) {
    capability = static_cast<int>(std::atof(text) * 10.0 + 0.5);
  }
  sm_count = capability >= 90 ? 132 : 108;
  if (const char* text = std::getenv("GPU_EMULATOR_SMS"); text && *text) sm_count = std::atoi(text);
  if (const char* text = std::getenv("GPU_EMULATOR_VERBOSE"); text && *text) verbose = true;
  std::atexit(at_exit);
}

Runtime& runtime() {
  static auto* r = new Runtime;
  return *r;
}

int shared_limit() {
  const int c = runtime().capability;
  return (c >= 90 ? 227 : c == 86 || c == 89 ? 99 : 163) * 1024;
}

cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) runtime().last = error;
  return error;
}

void fatal(const std::string& what) {
  std::fprintf(stderr, "[gpu emulator] fatal: %s\n", what.c_str());
  std::abort();
}

cudaError_t synchronise() {
  Runtime& r = runtime();
  const cudaError_t error = r.pending;
  r.pending = cudaSuccess;
  return result(error);
}

u64 take_violations() { return std::exchange(runtime().violations, 0); }

}  // namespace emu

using namespace emu;

#pragma GCC visibility push(default)
extern "C" {

cudaError_t cudaGetLastError() {
  const cudaError_t error = runtime().last;
  runtime().last = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() { return runtime().last; }
const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorNoKernelImageForDevice:
      return "cudaErrorNoKernelImageForDevice";
    default:
      return "a CUDA error";
  }
}
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorIllegalAddress:
      return "the emulator found a violation (see stderr)";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorNoKernelImageForDevice:
      return "no kernel image is available for execution on the device";
    case cudaErrorInvalidDeviceFunction:
      return "invalid device function";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureImplicit:
      return "operation would make the legacy stream depend on a capturing blocking stream";
    case cudaErrorInvalidClusterSize:
      return "invalid cluster size";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    default:
      return "a CUDA error";
  }
}

}  // extern "C"
#pragma GCC visibility pop
