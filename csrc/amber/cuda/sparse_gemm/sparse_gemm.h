// 2:4 sparse GEMM: Y = X W^T (+ bias), X compressed by prune_compress (16-bit operands, fp32
// accumulation) or by quantize_compress (8-bit operands, s32 or fp32 accumulation, scales applied to Y).
//
// Free of CUDA's headers: what a build contains can be asked where there is no CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "amber/dtype.h"
#include "amber/metadata.h"

struct CUstream_st;  // cudaStream_t points to one

namespace amber::cuda {

enum class RasterOrder { kHeuristic, kAlongM, kAlongN };

// What the tensor cores multiply: X and W in the output's 16-bit dtype, or both in 8 bits.
enum class Operands { k16bit, kInt8, kE4m3 };

constexpr const char* describe(Operands operands) {
  return operands == Operands::k16bit ? "16-bit" : operands == Operands::kInt8 ? "int8" : "e4m3";
}

struct SparseGemmArgs {
  const void* values;                   // [value_rows, K / 2]
  const uint8_t* metadata;              // in the kernel's layout, for T rows
  const void* weight;                   // [N, K], K contiguous
  const void* bias;                     // [N], or null
  void* output;                         // [output_rows, N]
  int64_t rows;                         // T
  int64_t out_features;                 // N
  int64_t in_features;                  // K
  int multiprocessors;                  // of the device
  const float* token_scale = nullptr;   // [value_rows], for 8-bit operands
  const float* weight_scale = nullptr;  // [N], for 8-bit operands
  RasterOrder raster_order = RasterOrder::kHeuristic;
  int max_swizzle = 1;
};

enum class GemmStatus { kOk, kUnsupportedShape, kNotCompiledForThisArch, kLaunchFailed };

constexpr const char* describe(GemmStatus status) {
  switch (status) {
    case GemmStatus::kOk:
      return "ok";
    case GemmStatus::kUnsupportedShape:
      return "CUTLASS cannot implement this shape";
    case GemmStatus::kNotCompiledForThisArch:
      return "the kernel was compiled by an nvcc that does not know its instructions";
    case GemmStatus::kLaunchFailed:
      return "the launch failed";
  }
  return "unknown status";
}

struct GemmTile {
  int m, n, k;
};

// Compute capabilities (major * 10 + minor) that a sparse GEMM may be for: those that CUDA 13 knows. A newer one is
// refused, not guessed at.
inline constexpr int kCapabilities[] = {80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};

// Bytes of shared memory that a block may have (CUDA programming guide, "Technical Specifications per Compute
// Capability"). That of 8.8 is not documented: the least of the others.
constexpr int64_t shared_memory_limit(int capability) {
  switch (capability) {
    case 80:
    case 87:
      return 163 << 10;
    case 90:
    case 100:
    case 103:
    case 110:
      return 227 << 10;
    default:
      return 99 << 10;
  }
}

inline constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

// What an instantiation is and what it takes, the compression before it included. N and K are those of the
// linear layer: K counts no copies.
struct SparseGemmDescriptor {
  const char* name;
  int arch;  // whose instructions it is made of. 80: 8.x and 12.x have them; 89: 8.9 and 12.x; 90: 9.0 alone;
             // 100: 10.0 alone
  Operands operands;
  DType dtype;  // of the output and the bias
  GemmTile tile;
  int64_t shared_memory;  // bytes of a block
  MetadataLayout layout;
  int64_t in_features_multiple;         // of K, for 2:4
  int64_t copies_in_features_multiple;  // of K, for patterns with extra windows (window.h)
  int64_t max_in_features;              // kUnlimited where K has no limit of the kernel's
  int64_t out_features_multiple;
  bool rescales;     // takes Rescale::kVariance
  bool padded_rows;  // values and output need metadata_rows(layout, T) rows

  // Of a GPU with this compute capability: its tensor cores know the instructions, and a tile fits into its shared
  // memory.
  bool runs_on(int capability) const;
  std::vector<int> capabilities() const;  // those that it runs on
};

// One instantiation. `run` launches on the stream, allocates nothing and does not synchronise.
struct SparseGemmKernel : SparseGemmDescriptor {
  size_t (*workspace_bytes)(const SparseGemmArgs&);
  GemmStatus (*run)(const SparseGemmArgs&, void* workspace, CUstream_st* stream);
};

// Every instantiation in this build.
const std::vector<const SparseGemmKernel*>& sparse_gemm_kernels();

// By name; null when this build has none.
const SparseGemmKernel* find_sparse_gemm(const char* name);

// The default for a device of this compute capability (major * 10 + minor); null when there is none.
const SparseGemmKernel* default_sparse_gemm(int arch, Operands operands, DType dtype);

}  // namespace amber::cuda
