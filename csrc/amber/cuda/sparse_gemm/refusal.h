// Whether a sparse GEMM runs a problem, compression included: the one rule, for the operators, for what
// chooses a kernel, and for tests. Needs no GPU.
#pragma once

#include <string>

#include "amber/args.h"
#include "amber/cuda/sparse_gemm/sparse_gemm.h"

namespace amber::cuda {

struct SparseProblem {
  int arch;  // of the device, major * 10 + minor
  Operands operands;
  DType dtype;  // of x and the output
  Pattern pattern;
  Rescale rescale;
  int64_t tokens;        // T
  int64_t out_features;  // N
  int64_t in_features;   // K, copies not counted
};

// Why the kernel does not run the problem, in one line that names the argument, its value and what is
// allowed; empty when it runs. An empty product (T or N is 0) launches nothing, so its shape is not refused.
std::string refusal(const SparseGemmDescriptor& kernel, const SparseProblem& problem);

// The name that stands for the build's default kernel for the device, operands and dtype.
inline constexpr const char* kDefaultSparseGemm = "sparse_gemm";

struct SparseGemmChoice {
  const SparseGemmKernel* kernel;
  std::string refusal;  // empty when the kernel runs the problem
  RasterOrder raster_order = RasterOrder::kHeuristic;
  int max_swizzle = 1;
};

// `name` may end with how the kernel walks the tiles of Y: "@M8" is along M, in strips of up to 8 tiles. Those for SM80
// walk them in one way alone.
SparseGemmChoice choose_sparse_gemm(const std::string& name, const SparseProblem& problem);

}  // namespace amber::cuda
