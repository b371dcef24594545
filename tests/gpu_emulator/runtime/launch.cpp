// Kernels: launches and their attributes.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "instructions/decode.h"
#include "machine/shared_memory.h"
#include "runtime/report.h"
#include "runtime/runtime.h"

namespace emu {
namespace {

cudaError_t kernel_of(KernelEntry& entry, Kernel*& kernel) {
  if (!entry.kernel) {
    Image* image = image_for(*entry.binary);
    if (!image || !image->module->bodies.count(entry.name)) return cudaErrorNoKernelImageForDevice;
    try {
      entry.kernel = decode_kernel(*image->module, entry.name, [image](const std::string& name) {
        const auto found = image->globals.find(name);
        return found == image->globals.end() ? u64{0} : found->second;
      });
      runtime().memory.adopt(reinterpret_cast<u64>(entry.kernel->parameters),
                             entry.kernel->function->parameter_bytes + 1, "kernel parameters");
    } catch (const std::exception& e) {
      fatal(std::string(e.what()) + "\n  " + demangle(entry.name));
    }
  }
  kernel = entry.kernel.get();
  return cudaSuccess;
}

void run_kernel(Kernel& kernel, const Dim3& grid, const Dim3& block, const Dim3& cluster, u32 shared,
                const std::vector<u8>& parameters) {
  Runtime& r = runtime();
  Launch l;
  l.kernel = &kernel;
  l.grid = grid, l.block = block, l.cluster = cluster;
  l.dynamic_shared = shared;
  l.memory = &r.memory;
  l.sm_count = r.sm_count;
  l.serial = ++r.launches;
  std::copy(parameters.begin(), parameters.end(), kernel.parameters);
  Stats stats;
  std::string error;
  const auto begin = std::chrono::steady_clock::now();
  try {
    run_launch(l, stats);
  } catch (const Violation& v) {
    error = v.what();
    std::fprintf(stderr, "[gpu emulator] VIOLATION: %s\n  (%.300s)\n", v.what(), demangle(kernel.name).c_str());
    r.pending = cudaErrorIllegalAddress;
    r.violations += 1;
  } catch (const std::exception& e) {
    fatal(std::string(e.what()) + "\n  in kernel " + demangle(kernel.name));
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const Footprint footprint = r.memory.take_footprint();
  keep_counts(l, stats, footprint, error);
  report_launch(l, stats, footprint, seconds, error);
  if (r.verbose) {
    u64 lanes = 0;
    for (const Counters& c : stats.ops) lanes += c.lanes;
    std::fprintf(stderr, "[gpu emulator] %.120s grid %u,%u,%u block %u: %.3f s, %.0f M thread instructions/s\n",
                 demangle(kernel.name).c_str(), grid.x, grid.y, grid.z, block.x, seconds,
                 static_cast<double>(lanes) / seconds / 1e6);
  }
}

cudaError_t launch(KernelEntry* entry, dim3 grid, dim3 block, dim3 cluster, void** args, size_t shared,
                   cudaStream_t stream) {
  Kernel* kernel;
  if (const cudaError_t error = kernel_of(*entry, kernel); error != cudaSuccess) return result(error);
  const Function& f = *kernel->function;
  const u64 threads = u64{block.x} * block.y * block.z;
  if (!grid.x || !grid.y || !grid.z || !threads || threads > 1024 || grid.y > 65535 || grid.z > 65535 ||
      grid.x > 0x7fffffffu)
    return result(cudaErrorInvalidConfiguration);
  if (f.max_threads && threads > static_cast<u64>(f.max_threads)) return result(cudaErrorInvalidValue);
  if (grid.x % cluster.x || grid.y % cluster.y || grid.z % cluster.z || cluster.x * cluster.y * cluster.z > 8)
    return result(cudaErrorInvalidClusterSize);
  const int limit = shared_limit();
  const size_t whole = kernel->static_shared - kSharedReserved + shared;
  if (shared > static_cast<size_t>(entry->max_dynamic_shared) || whole > static_cast<size_t>(limit))
    return result(cudaErrorInvalidValue);
  std::vector<u8> parameters(f.parameter_bytes);
  for (size_t i = 0; i < f.parameters.size(); ++i)
    std::memcpy(parameters.data() + f.parameters[i].offset, args[i], f.parameters[i].bytes);
  const Dim3 g{grid.x, grid.y, grid.z}, b{block.x, block.y, block.z}, c{cluster.x, cluster.y, cluster.z};
  return on_stream(stream,
                   [=, p = std::move(parameters)] { run_kernel(*kernel, g, b, c, static_cast<u32>(shared), p); });
}

KernelEntry* find_kernel(const void* function) {
  const auto found = runtime().kernels.find(function);
  return found == runtime().kernels.end() ? nullptr : found->second.get();
}

}  // namespace

}  // namespace emu

using namespace emu;

#pragma GCC visibility push(default)
extern "C" {

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st* stream) {
  runtime().configurations.push_back({grid, block, shared, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  auto& all = runtime().configurations;
  if (all.empty()) return cudaErrorMissingConfiguration;
  *grid = all.back().grid, *block = all.back().block, *shared = all.back().shared;
  *static_cast<cudaStream_t*>(stream) = all.back().stream;
  all.pop_back();
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = reinterpret_cast<cudaKernel_t>(find_kernel(function));
  return *kernel ? cudaSuccess : result(cudaErrorInvalidDeviceFunction);
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** args, size_t shared,
                               cudaStream_t stream) {
  if (!kernel) return result(cudaErrorInvalidDeviceFunction);
  return launch(reinterpret_cast<KernelEntry*>(kernel), grid, block, dim3(1, 1, 1), args, shared, stream);
}
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** args, size_t shared,
                             cudaStream_t stream) {
  KernelEntry* entry = find_kernel(function);
  if (!entry) return result(cudaErrorInvalidDeviceFunction);
  return launch(entry, grid, block, dim3(1, 1, 1), args, shared, stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** args) {
  KernelEntry* entry = find_kernel(function);
  if (!entry) return result(cudaErrorInvalidDeviceFunction);
  dim3 cluster(1, 1, 1);
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    if (config->attrs[i].id == cudaLaunchAttributeClusterDimension) {
      const auto& c = config->attrs[i].val.clusterDim;
      cluster = dim3(c.x, c.y, c.z);
    }
  }
  return launch(entry, config->gridDim, config->blockDim, cluster, args, config->dynamicSmemBytes, config->stream);
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  KernelEntry* entry = find_kernel(function);
  if (!entry) return result(cudaErrorInvalidDeviceFunction);
  Kernel* kernel;
  if (const cudaError_t error = kernel_of(*entry, kernel); error != cudaSuccess) return result(error);
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    const int limit = shared_limit();
    if (value < 0 || value + static_cast<int>(kernel->static_shared - kSharedReserved) > limit)
      return result(cudaErrorInvalidValue);
    entry->max_dynamic_shared = value;
  }
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  KernelEntry* entry = find_kernel(function);
  if (!entry) return result(cudaErrorInvalidDeviceFunction);
  Kernel* kernel;
  if (const cudaError_t error = kernel_of(*entry, kernel); error != cudaSuccess) return result(error);
  std::memset(attributes, 0, sizeof *attributes);
  attributes->sharedSizeBytes = kernel->static_shared - kSharedReserved;
  attributes->localSizeBytes = kernel->local_bytes;
  attributes->maxThreadsPerBlock = kernel->function->max_threads ? kernel->function->max_threads : 1024;
  attributes->numRegs = 64;
  attributes->ptxVersion = attributes->binaryVersion = runtime().capability;
  attributes->maxDynamicSharedSizeBytes = entry->max_dynamic_shared;
  return cudaSuccess;
}
cudaError_t cudaFuncSetCacheConfig(const void*, cudaFuncCache) { return cudaSuccess; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* function, int threads,
                                                                   size_t shared, unsigned) {
  KernelEntry* entry = find_kernel(function);
  if (!entry) return result(cudaErrorInvalidDeviceFunction);
  const size_t each = shared + 1024;
  *blocks = static_cast<int>(
      std::min<size_t>(2048 / std::max(threads, 1), static_cast<size_t>(shared_limit() + 1024) / each));
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function, int threads,
                                                          size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared, 0);
}
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, const void*, const cudaLaunchConfig_t* config) {
  unsigned size = 1;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    if (config->attrs[i].id == cudaLaunchAttributeClusterDimension) {
      const auto& c = config->attrs[i].val.clusterDim;
      size = c.x * c.y * c.z;
    }
  }
  *clusters = runtime().sm_count / static_cast<int>(size);
  return cudaSuccess;
}

}  // extern "C"
#pragma GCC visibility pop
