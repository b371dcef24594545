// A linear layer on sparse tensor cores: prune, compress, multiply. The plan holds all that follows from the
// problem: whether it runs, with which kernel, and what memory that takes. Running it launches and allocates
// nothing, so the caller decides where memory comes from.
#pragma once

#include <cstdint>
#include <string>

#include "amber/cuda/sparse_gemm/refusal.h"

namespace amber::cuda {

struct SparseLinearPlan {
  std::string refusal;  // one line; empty when the problem runs. The rest holds only then.
  SparseProblem problem;
  int multiprocessors;
  const SparseGemmKernel* kernel;
  RasterOrder raster_order;
  int max_swizzle;
  bool empty;            // T, N or K is 0: there is nothing to prune or multiply
  int64_t wide_cols;     // K' of the weight: K and the copies that the pattern's windows need
  int64_t rows;          // of values, token scales and output: T, then padding that some kernels write
  int64_t values_bytes;  // the sizes below are 0 where the buffer is not used
  int64_t metadata_bytes;
  int64_t token_scale_bytes;
  int64_t workspace_bytes;
};

// `kernel` is what `choose_sparse_gemm` takes.
SparseLinearPlan plan_sparse_linear(const std::string& kernel, const SparseProblem& problem, int multiprocessors);

// Pointers of the device, 16-byte aligned. Those marked 8-bit are null for 16-bit operands.
struct SparseLinearBuffers {
  const void* x;              // [T, K], contiguous
  const void* weight;         // [N, K'], contiguous
  const float* weight_scale;  // [N], 8-bit
  const void* bias;           // [N], or null
  const float* smooth;        // [K] factors that x is multiplied with, or null, 8-bit
  const float* scale;         // [K] channel scales of the selection, or null
  void* values;               // scratch, of the plan's sizes
  uint8_t* metadata;
  float* token_scale;  // 8-bit
  void* workspace;
  void* output;  // [rows, N]; the first T rows are the result
};

// Launches on `stream`, allocates nothing, does not synchronise; an empty plan launches nothing. Returns one
// line that names the step which failed and why, or an empty one. The plan must not be a refusal.
std::string run_sparse_linear(const SparseLinearPlan& plan, const SparseLinearBuffers& buffers, CUstream_st* stream);

// The product alone, of values, metadata and token scales that are a compressed form already; `x`, `smooth` and `scale`
// are not looked at.
std::string run_sparse_product(const SparseLinearPlan& plan, const SparseLinearBuffers& buffers, CUstream_st* stream);

// What a sparse GEMM gets. Without buffers it is still good for asking how large its workspace is.
SparseGemmArgs sparse_gemm_args(const SparseLinearPlan& plan, const SparseLinearBuffers& buffers);

}  // namespace amber::cuda
