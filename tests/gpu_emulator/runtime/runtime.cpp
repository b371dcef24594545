// The CUDA runtime functions that the project's objects and tests call, on the emulated device.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>

#include "instructions/decode.h"
#include "memory/tensor_map.h"
#include "runtime/counts.h"
#include "runtime/report.h"

namespace emu {
namespace {

struct Image {
  int arch = 0;           // 80, 90
  bool specific = false;  // 90a
  std::string text;
  std::unique_ptr<Module> module;
  bool ready = false;
  std::unordered_map<std::string, u64> globals;
};

struct FatBinary {
  std::vector<Image> images;
};

struct KernelEntry {
  FatBinary* binary;
  std::string name;
  std::unique_ptr<Kernel> kernel;
  int max_dynamic_shared = 48 * 1024;
};

struct Stream {
  bool capturing = false;
  bool blocking = true;
  struct Graph* graph = nullptr;
};

struct Graph {
  std::vector<std::function<void()>> nodes;
};

struct TimedEvent {
  std::chrono::steady_clock::time_point time;
};

struct Configuration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};

void at_exit();

struct Runtime {
  Memory memory;
  std::vector<std::unique_ptr<FatBinary>> binaries;
  std::unordered_map<const void*, std::unique_ptr<KernelEntry>> kernels;
  std::vector<Configuration> configurations;
  std::set<Stream*> streams;
  cudaError_t last = cudaSuccess;     // of cudaGetLastError
  cudaError_t pending = cudaSuccess;  // of a kernel that failed; the next synchronisation reports it
  int captures = 0;
  u64 launches = 0, violations = 0;
  int capability = 90;
  int sm_count = 132;
  bool verbose = false;

  Runtime() {
    if (const char* text = std::getenv("GPU_EMULATOR_CAPABILITY"); text && *text) {
      capability = static_cast<int>(std::atof(text) * 10.0 + 0.5);
    }
    sm_count = capability >= 90 ? 132 : 108;
    if (const char* text = std::getenv("GPU_EMULATOR_SMS"); text && *text) sm_count = std::atoi(text);
    if (const char* text = std::getenv("GPU_EMULATOR_VERBOSE"); text && *text) verbose = true;
    std::atexit(at_exit);
  }
};

Runtime& runtime() {
  static auto* r = new Runtime;
  return *r;
}

// Shared memory that a block may have.
int shared_limit() {
  const int c = runtime().capability;
  return (c >= 90 ? 227 : c == 86 || c == 89 ? 99 : 163) * 1024;
}

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

cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) runtime().last = error;
  return error;
}

[[noreturn]] void fatal(const std::string& what) {
  std::fprintf(stderr, "[gpu emulator] fatal: %s\n", what.c_str());
  std::abort();
}

void read_images(FatBinary& binary, const void* data) {
  const u8* p = static_cast<const u8*>(data);
  u32 magic;
  std::memcpy(&magic, p, 4);
  if (magic != 0xba55ed50u) fatal("a fat binary has an unknown format");
  u16 header;
  u64 size;
  std::memcpy(&header, p + 6, 2);
  std::memcpy(&size, p + 8, 8);
  const u8* at = p + header;
  const u8* end = at + size;
  while (at + 16 < end) {
    u16 kind;
    u32 entry_header;
    u64 payload;
    std::memcpy(&kind, at, 2);
    std::memcpy(&entry_header, at + 4, 4);
    std::memcpy(&payload, at + 8, 8);
    if (kind == 1) {
      Image image;
      image.text.assign(reinterpret_cast<const char*>(at + entry_header), payload);
      image.text.resize(std::strlen(image.text.c_str()));
      const size_t target = image.text.find(".target sm_");
      if (image.text.find(".version") == std::string::npos || target == std::string::npos)
        fatal("PTX in a fat binary is compressed; compile with --no-compress");
      image.arch = std::atoi(image.text.c_str() + target + 11);
      const size_t digits = image.text.find_first_not_of("0123456789", target + 11);
      image.specific = image.text[digits] == 'a';
      binary.images.push_back(std::move(image));
    }
    at += entry_header + payload;
  }
}

Image* image_for(FatBinary& binary) {
  // The newest PTX that the device can run; architecture-specific PTX runs on its own architecture only.
  Image* best = nullptr;
  const int capability = runtime().capability;
  for (Image& image : binary.images) {
    if (image.arch > capability || (image.specific && image.arch != capability)) continue;
    if (!best || image.arch > best->arch || (image.arch == best->arch && image.specific)) best = &image;
  }
  if (best && !best->ready) {
    best->module = parse_module(best->text);
    best->text.clear();
    best->ready = true;
    for (const auto* variables : {&best->module->global, &best->module->constant}) {
      for (const Variable& v : *variables) {
        const u64 base = runtime().memory.allocate(std::max<u64>(v.bytes, 1), "module variable", true);
        std::memset(reinterpret_cast<void*>(base), 0, v.bytes);
        std::memcpy(reinterpret_cast<void*>(base), v.initial.data(), v.initial.size());
        best->globals[v.name] = base;
      }
    }
  }
  return best;
}

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
  std::memcpy(kernel.parameters, parameters.data(), parameters.size());
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

// Runs now, or records for a graph.
cudaError_t on_stream(cudaStream_t handle, std::function<void()> work) {
  Runtime& r = runtime();
  auto* stream = reinterpret_cast<Stream*>(handle);
  const bool legacy = handle == nullptr || handle == cudaStreamLegacy || handle == cudaStreamPerThread;
  if (!legacy && !r.streams.count(stream)) return result(cudaErrorInvalidResourceHandle);
  if (!legacy && stream->capturing) {
    stream->graph->nodes.push_back(std::move(work));
    return cudaSuccess;
  }
  if (legacy && r.captures > 0 && handle != cudaStreamPerThread) return result(cudaErrorStreamCaptureImplicit);
  work();
  return cudaSuccess;
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

cudaError_t synchronise() {
  Runtime& r = runtime();
  const cudaError_t error = r.pending;
  r.pending = cudaSuccess;
  return result(error);
}

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
  std::memmove(to, from, bytes);
  runtime().memory.mark(reinterpret_cast<u64>(to), bytes, true);
}

void set_now(void* to, int value, size_t bytes) {
  std::memset(to, value, bytes);
  Allocation* a = runtime().memory.find(reinterpret_cast<u64>(to));
  // Tests fill fresh arrays with 0xff so that nothing valid is in them; reading that is an error.
  const bool poison = Options::get().poison_is_uninitialised && (value & 0xff) == 0xff && a &&
                      a->base == reinterpret_cast<u64>(to) && bytes + 1 >= a->bytes;
  runtime().memory.mark(reinterpret_cast<u64>(to), bytes, !poison);
}

CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                      const cuuint64_t* dims, const cuuint64_t* strides, const cuuint32_t* box,
                      const cuuint32_t* element_strides, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                      CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
  if (!map || reinterpret_cast<u64>(map) % 64 || rank < 1 || rank > 5 || reinterpret_cast<u64>(address) % 16)
    return CUDA_ERROR_INVALID_VALUE;
  TensorMap t{};
  t.magic = kTensorMapMagic;
  t.address = reinterpret_cast<u64>(address);
  t.rank = static_cast<u8>(rank);
  t.type = static_cast<u8>(type);
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
      t.element_bytes = 1;
      break;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
      t.element_bytes = 2;
      break;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
      t.element_bytes = 4;
      break;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
      t.element_bytes = 8;
      break;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  t.swizzle = static_cast<u8>(swizzle), t.interleave = static_cast<u8>(interleave), t.fill = static_cast<u8>(fill);
  if (interleave != CU_TENSOR_MAP_INTERLEAVE_NONE) return CUDA_ERROR_INVALID_VALUE;  // not modelled
  for (u32 i = 0; i < rank; ++i) {
    if (dims[i] == 0 || dims[i] > (u64{1} << 32) || box[i] == 0 || box[i] > 256 || element_strides[i] == 0 ||
        element_strides[i] > 8)
      return CUDA_ERROR_INVALID_VALUE;
    t.dims[i] = dims[i], t.box[i] = static_cast<u16>(box[i]), t.element_stride[i] = static_cast<u8>(element_strides[i]);
    if (i > 0) {
      if (strides[i - 1] % 16 || strides[i - 1] >= (u64{1} << 40)) return CUDA_ERROR_INVALID_VALUE;
      t.strides[i - 1] = strides[i - 1];
    }
  }
  const u64 inner = u64{t.box[0]} * t.element_bytes;
  if (inner % 16) return CUDA_ERROR_INVALID_VALUE;
  const u64 widest = swizzle == CU_TENSOR_MAP_SWIZZLE_32B    ? 32
                     : swizzle == CU_TENSOR_MAP_SWIZZLE_64B  ? 64
                     : swizzle == CU_TENSOR_MAP_SWIZZLE_128B ? 128
                                                             : ~u64{0};
  if (inner > widest || swizzle > CU_TENSOR_MAP_SWIZZLE_128B) return CUDA_ERROR_INVALID_VALUE;
  std::memset(map, 0, sizeof *map);
  std::memcpy(map, &t, sizeof t);
  return CUDA_SUCCESS;
}

CUresult driver_error_string(CUresult, const char** text) {
  *text = "an error of the emulated driver";
  return CUDA_SUCCESS;
}

cudaError_t entry_point(const char* symbol, void** pointer, cudaDriverEntryPointQueryResult* status) {
  *pointer = nullptr;
  if (!std::strcmp(symbol, "cuTensorMapEncodeTiled")) *pointer = reinterpret_cast<void*>(&encode_tiled);
  if (!std::strcmp(symbol, "cuGetErrorString") || !std::strcmp(symbol, "cuGetErrorName"))
    *pointer = reinterpret_cast<void*>(&driver_error_string);
  if (status) *status = *pointer ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  if (!*pointer) std::fprintf(stderr, "[gpu emulator] the driver function %s is not modelled\n", symbol);
  return *pointer ? cudaSuccess : result(cudaErrorSymbolNotFound);
}

}  // namespace

u64 take_violations() { return std::exchange(runtime().violations, 0); }

}  // namespace emu

using namespace emu;

#pragma GCC visibility push(default)
extern "C" {

// ---- registration
void** __cudaRegisterFatBinary(void* wrapper) {
  struct Wrapper {
    int magic, version;
    const void* data;
    void* more;
  };
  auto binary = std::make_unique<FatBinary>();
  read_images(*binary, static_cast<Wrapper*>(wrapper)->data);
  runtime().binaries.push_back(std::move(binary));
  return reinterpret_cast<void**>(runtime().binaries.back().get());
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void** handle, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  auto entry = std::make_unique<KernelEntry>();
  entry->binary = reinterpret_cast<FatBinary*>(handle);
  entry->name = name;
  runtime().kernels[host] = std::move(entry);
}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

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

// ---- launches
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

// ---- memory
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

// ---- streams, events, graphs
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  auto* s = new Stream;
  s->blocking = !(flags & cudaStreamNonBlocking);
  runtime().streams.insert(s);
  *stream = reinterpret_cast<cudaStream_t>(s);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, 0); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  auto* s = reinterpret_cast<Stream*>(stream);
  if (!runtime().streams.erase(s)) return result(cudaErrorInvalidResourceHandle);
  delete s;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return runtime().captures ? result(cudaErrorStreamCaptureUnsupported) : synchronise();
}
cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  auto* s = reinterpret_cast<Stream*>(stream);
  *status = runtime().streams.count(s) && s->capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  auto* s = reinterpret_cast<Stream*>(stream);
  if (!runtime().streams.count(s) || s->capturing) return result(cudaErrorInvalidValue);
  s->capturing = true;
  s->graph = new Graph;
  ++runtime().captures;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  auto* s = reinterpret_cast<Stream*>(stream);
  if (!runtime().streams.count(s) || !s->capturing) return result(cudaErrorInvalidValue);
  s->capturing = false;
  --runtime().captures;
  *graph = reinterpret_cast<cudaGraph_t>(s->graph);
  s->graph = nullptr;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t) {
  for (const auto& node : reinterpret_cast<Graph*>(executable)->nodes) node();
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete reinterpret_cast<Graph*>(executable);
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new emu::TimedEvent{});
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  reinterpret_cast<emu::TimedEvent*>(event)->time = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return synchronise(); }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) {
  *ms = std::chrono::duration<float, std::milli>(reinterpret_cast<emu::TimedEvent*>(b)->time -
                                                 reinterpret_cast<emu::TimedEvent*>(a)->time)
            .count();
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<emu::TimedEvent*>(event);
  return cudaSuccess;
}

// ---- the device
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

// ---- errors
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
