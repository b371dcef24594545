// The state of the emulated CUDA runtime, and what the files with its functions share.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "machine/machine.h"

namespace emu {

struct Image {
  int arch = 0;           // 80, 90
  bool specific = false;  // 90a
  std::string text;
  std::unique_ptr<Module> module;  // null until a kernel of it is launched
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
  struct Graph* graph = nullptr;
};

struct Configuration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};

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

  Runtime();
};

Runtime& runtime();

// Keeps an error for cudaGetLastError.
cudaError_t result(cudaError_t error);
[[noreturn]] void fatal(const std::string& what);
// What a kernel that failed left for this synchronisation.
cudaError_t synchronise();
// Runs now, or records for a graph.
cudaError_t on_stream(cudaStream_t handle, std::function<void()> work);

// Shared memory that a block may have.
int shared_limit();
// The best PTX for this device, parsed, its variables allocated; null where there is none.
Image* image_for(FatBinary& binary);
// The function that cudaGetDriverEntryPoint returns for cuTensorMapEncodeTiled.
void* tensor_map_encoder();
// For gpu_emulator.h: launches that stopped at a violation since the last call; those no longer fail the process.
u64 take_violations();

}  // namespace emu
