#include "amber/cuda/linear/compressed_form.h"

#include <cuda_runtime_api.h>

#include "amber/cuda/aligned.h"
#include "amber/cuda/compress/sources/silu_mul_compress.h"
#include "amber/cuda/line.h"
#include "amber/pattern_names.h"
#include "amber/window.h"

namespace amber::cuda {
namespace {

bool is_sm80(MetadataLayout layout) {
  return layout == MetadataLayout::kSm80_16bit || layout == MetadataLayout::kSm80_8bit;
}

std::string refusal(const FormProblem& p) {
  if (p.dtype == DType::kFloat32) return "dtype: float32 has no compressed form on CUDA; allowed: float16, bfloat16";
  const int extra = extra_windows(p.pattern);
  if (extra < 0) {
    return line("pattern: '", p.pattern.n, ":", p.pattern.m, p.pattern.windowed ? "w" : "",
                "' has no compressed form on CUDA; allowed: ", sparse_pattern_names(", ", "'"));
  }
  if (p.rescale == Rescale::kVariance && !p.quantized) {
    return "rescale: 'variance' does not run on 16-bit values on CUDA; allowed: 'none'";
  }
  const int64_t multiple = p.quantized ? kQuantizeColumns : extra == 0 ? kCompressColumns : kCompressCopiesColumns;
  if (p.in_features == 0 || p.in_features % multiple != 0) {
    return line("gate: its last dimension K = ", p.in_features, " is not allowed; it must be a multiple of ", multiple);
  }
  if (p.quantized && p.in_features > kMaxQuantizeColumns) {
    return line("gate: its last dimension K = ", p.in_features, " is too large; allowed: up to ", kMaxQuantizeColumns);
  }
  if (p.tokens > INT32_MAX) return line("gate: T = ", p.tokens, " tokens are too many; allowed: up to ", INT32_MAX);
  return "";
}

}  // namespace

FormPlan plan_form(const FormProblem& problem) {
  FormPlan plan{};
  plan.problem = problem;
  plan.refusal = refusal(problem);
  if (!plan.refusal.empty()) return plan;
  plan.wide_cols = widened_cols(problem.in_features, extra_windows(problem.pattern));
  plan.rows = is_sm80(problem.layout) ? metadata_rows(problem.layout, problem.tokens) : problem.tokens;
  plan.metadata_bytes = metadata_bytes(problem.layout, problem.tokens, plan.wide_cols);
  return plan;
}

std::string run_silu_mul_form(const FormPlan& plan, const SiluMulForm& at, CUstream_st* stream) {
  const FormProblem& p = plan.problem;
  if (p.tokens == 0) return "";
  for (const void* pointer : {at.gate, at.up, static_cast<const void*>(at.smooth), static_cast<const void*>(at.scale),
                              static_cast<const void*>(at.values), static_cast<const void*>(at.metadata),
                              static_cast<const void*>(at.token_scale)}) {
    if (!aligned(pointer)) return line("silu_mul_prune: an array", kReadInPlace);
  }
  const cudaError_t error =
      p.quantized ? silu_mul_quantize_compress(
                        {at.gate, at.smooth, at.scale, at.values, at.metadata, at.token_scale, p.tokens, p.in_features,
                         plan.rows, p.dtype, p.layout, *p.quantized, p.rescale == Rescale::kVariance, p.pattern, at.up},
                        stream)
                  : silu_mul_prune_compress({at.gate, at.scale, at.values, at.metadata, p.tokens, p.in_features,
                                             plan.rows, p.dtype, p.layout, p.pattern, at.up},
                                            stream);
  return error == cudaSuccess ? "" : line("silu_mul_prune: CUDA error: ", cudaGetErrorString(error));
}

}  // namespace amber::cuda
