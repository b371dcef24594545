#include "amber/cuda/sparse_gemm/refusal.h"

#include <string_view>

#include "amber/cuda/line.h"
#include "amber/pattern_names.h"
#include "amber/window.h"

namespace amber::cuda {
namespace {

std::string capability(int arch) { return line(arch / 10, ".", arch % 10); }

// Fills in what stands behind '@'; false when it is no walk.
bool parse_walk(const std::string& walk, SparseGemmChoice& choice) {
  if (walk.size() != 2 || (walk[0] != 'M' && walk[0] != 'N')) return false;
  if (std::string_view("1248").find(walk[1]) == std::string_view::npos) return false;
  choice.raster_order = walk[0] == 'M' ? RasterOrder::kAlongM : RasterOrder::kAlongN;
  choice.max_swizzle = walk[1] - '0';
  return true;
}

std::string capabilities(const std::vector<int>& archs) {
  std::string text;
  for (int arch : archs) text += (text.empty() ? "" : ", ") + capability(arch);
  return text;
}

// The names of what this build has for these operands, on the device or, where there is none, on any.
std::string what_is_there(const SparseProblem& problem) {
  std::string here, anywhere;
  for (const SparseGemmKernel* kernel : sparse_gemm_kernels()) {
    if (kernel->operands != problem.operands || kernel->dtype != problem.dtype) continue;
    std::string& names = kernel->runs_on(problem.arch) ? here : anywhere;
    names += (names.empty() ? "" : ", ") + std::string(kernel->name);
  }
  if (!here.empty()) return line("allowed: ", here);
  return anywhere.empty() ? "it has none" : line("for other GPUs it has ", anywhere);
}

}  // namespace

std::string refusal(const SparseGemmDescriptor& kernel, const SparseProblem& problem) {
  if (!kernel.runs_on(problem.arch)) {
    return line("kernel: '", kernel.name, "' does not run on compute capability ", capability(problem.arch),
                "; allowed: ", capabilities(kernel.capabilities()));
  }
  if (kernel.operands != problem.operands || kernel.dtype != problem.dtype) {
    return line("kernel: '", kernel.name, "' does not take ", describe(problem.operands), " operands and dtype ",
                describe(problem.dtype), "; allowed: ", describe(kernel.operands), " and ", describe(kernel.dtype));
  }
  const int extra = extra_windows(problem.pattern);
  if (extra < 0) {
    return line("pattern: '", problem.pattern.n, ":", problem.pattern.m, problem.pattern.windowed ? "w" : "",
                "' does not run on a sparse GEMM; allowed: ", sparse_pattern_names(", ", "'"));
  }
  if (problem.rescale == Rescale::kVariance && !kernel.rescales) {
    return line("rescale: 'variance' does not run on a sparse GEMM of ", describe(kernel.operands),
                " operands; allowed: 'none'");
  }
  const int64_t t = problem.tokens, n = problem.out_features, k = problem.in_features;
  if (t == 0 || n == 0) return "";
  const int64_t multiple = extra == 0 ? kernel.in_features_multiple : kernel.copies_in_features_multiple;
  if (k % multiple != 0) {
    return line("x: its last dimension K = ", k, " is not a multiple of ", multiple, ", which ", kernel.name, " needs");
  }
  if (k > kernel.max_in_features) {
    return line("x: its last dimension K = ", k, " is too large; allowed: up to ", kernel.max_in_features);
  }
  if (n % kernel.out_features_multiple != 0) {
    return line("weight: its first dimension N = ", n, " is not a multiple of ", kernel.out_features_multiple,
                ", which ", kernel.name, " needs");
  }
  // CUTLASS takes problem sizes as int.
  if (t > INT32_MAX) return line("x: T = ", t, " tokens are too many; allowed: up to ", INT32_MAX);
  if (n > INT32_MAX) return line("weight: its first dimension N = ", n, " is too large; allowed: up to ", INT32_MAX);
  if (k > INT32_MAX || widened_cols(k, extra) > INT32_MAX) {
    return line("x: its last dimension K = ", k, " is too large; allowed: up to ", INT32_MAX, ", copies included");
  }
  return "";
}

SparseGemmChoice choose_sparse_gemm(const std::string& name, const SparseProblem& problem) {
  const size_t at = name.find('@');
  const std::string base = name.substr(0, at);
  const SparseGemmKernel* kernel = base == kDefaultSparseGemm
                                       ? default_sparse_gemm(problem.arch, problem.operands, problem.dtype)
                                       : find_sparse_gemm(base.c_str());
  if (!kernel) {
    return {nullptr, line("kernel: '", name, "' is not in this build for compute capability ", capability(problem.arch),
                          ", ", describe(problem.operands), " operands and dtype ", describe(problem.dtype), "; ",
                          what_is_there(problem))};
  }
  SparseGemmChoice choice{kernel, refusal(*kernel, problem)};
  if (at != std::string::npos && (kernel->arch < 90 || !parse_walk(name.substr(at + 1), choice))) {
    choice.refusal = line("kernel: '", name, "' is not allowed; behind '@' ", kernel->name,
                          kernel->arch < 90 ? " takes nothing" : " takes M or N and 1, 2, 4 or 8");
  }
  return choice;
}

}  // namespace amber::cuda
