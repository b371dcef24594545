#include "amber/cuda/linear/sparse_linear.h"
#include "amber/window.h"

namespace amber::cuda {

SparseLinearPlan plan_sparse_linear(const std::string& kernel, const SparseProblem& problem, int multiprocessors) {
  SparseLinearPlan plan{};
  plan.problem = problem;
  plan.multiprocessors = multiprocessors;
  const int64_t t = problem.tokens, n = problem.out_features, k = problem.in_features;
  const bool quantized = problem.operands != Operands::k16bit;
  if (quantized && k == 0) {
    plan.refusal = "x: its last dimension K is 0; at least 1 channel is needed";
    return plan;
  }
  plan.empty = t == 0 || n == 0 || k == 0;
  SparseProblem chosen_for = problem;
  if (plan.empty) chosen_for.tokens = 0;  // nothing is launched, so no shape is refused
  const SparseGemmChoice choice = choose_sparse_gemm(kernel, chosen_for);
  plan.refusal = choice.refusal;
  if (!plan.refusal.empty()) return plan;

  plan.kernel = choice.kernel;
  plan.raster_order = choice.raster_order;
  plan.max_swizzle = choice.max_swizzle;
  plan.wide_cols = widened_cols(k, extra_windows(problem.pattern));
  plan.rows = t;
  if (plan.empty) return plan;
  const MetadataLayout layout = plan.kernel->layout;
  if (plan.kernel->padded_rows) plan.rows = metadata_rows(layout, t);
  plan.values_bytes = plan.rows * (plan.wide_cols / 2) * (quantized ? 1 : 2);
  plan.metadata_bytes = metadata_bytes(layout, t, plan.wide_cols);
  if (quantized) plan.token_scale_bytes = plan.rows * static_cast<int64_t>(sizeof(float));
  plan.workspace_bytes = static_cast<int64_t>(plan.kernel->workspace_bytes(sparse_gemm_args(plan, {})));
  return plan;
}

SparseGemmArgs sparse_gemm_args(const SparseLinearPlan& plan, const SparseLinearBuffers& buffers) {
  return {buffers.values,       buffers.metadata,          buffers.weight,  buffers.bias,         buffers.output,
          plan.problem.tokens,  plan.problem.out_features, plan.wide_cols,  plan.multiprocessors, buffers.token_scale,
          buffers.weight_scale, plan.raster_order,         plan.max_swizzle};
}

}  // namespace amber::cuda
