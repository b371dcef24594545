#include "sparse_linear_cuda.h"

#include "amber/cuda/linear/sparse_linear.h"
#include "cuda_support.h"
#include "dense_linear.h"
#include "kernel_choice.h"

namespace amber::ops {
namespace {

// What both operators are called with.
struct SparseLinear {
  const Tensor& x;       // [..., K]
  const Tensor& weight;  // [N, K'], copies included
  const std::optional<Tensor>& bias;
  const std::optional<Tensor>& scale;
  std::optional<Tensor> smooth, weight_scale;  // 8-bit operands only
  cuda::Operands operands;
  Pattern pattern;
  Rescale rescale;
  const std::string& kernel;
};

// The weight is read where it lies: a copy of it would cost more than pruning saves. Running the plan checks
// the alignment.
void check_in_place(const char* name, const Tensor& tensor) { check(tensor.is_contiguous(), name, cuda::kReadInPlace); }

Tensor sparse_linear(const SparseLinear& op) {
  const int64_t cols = checked_columns(op.x, op.pattern), tokens = tokens_of(op.x);
  check(op.weight.dim() == 2, "weight: shape ", shape(op.weight), " is not a matrix; allowed: [N, K]");
  const int64_t n = op.weight.size(0);
  const DeviceGuard guard(op.x.get_device_index());
  const cuda::SparseLinearPlan plan = cuda::plan_sparse_linear(
      op.kernel, {device_arch(op.x), op.operands, activation_dtype(op.x), op.pattern, op.rescale, tokens, n, cols},
      device_attribute(cudaDevAttrMultiProcessorCount, op.x));
  check(plan.refusal.empty(), plan.refusal);
  check_weight_shape(op.weight, plan.wide_cols);
  check_bias(op.x, op.weight, op.bias);
  check_device("weight", op.weight, op.x);
  if (op.bias) check_device("bias", *op.bias, op.x);
  const auto scale = checked_factors("scale", op.scale, op.x, cols);
  const auto smooth = checked_factors("smooth", op.smooth, op.x, cols);
  const auto weight_scale = checked_factors("weight_scale", op.weight_scale, op.x, n);
  if (cols == 0) return dense_linear(op.x, op.weight, op.bias);
  std::vector<int64_t> sizes = sizes_of(op.x);
  sizes.back() = n;
  if (plan.empty) return torch::stable::new_empty(op.x, sizes);
  check_in_place("weight", op.weight);
  if (op.bias) check_in_place("bias", *op.bias);

  const Tensor x = kernel_input(op.x);
  const Scratch values(x, plan.values_bytes), metadata(x, plan.metadata_bytes), token_scale(x, plan.token_scale_bytes),
      workspace(x, plan.workspace_bytes);
  Tensor output = torch::stable::new_empty(x, {plan.rows, n});
  const std::string error = cuda::run_sparse_linear(plan,
                                                    {.x = x.const_data_ptr(),
                                                     .weight = op.weight.const_data_ptr(),
                                                     .weight_scale = scale_pointer(weight_scale),
                                                     .bias = op.bias ? op.bias->const_data_ptr() : nullptr,
                                                     .smooth = scale_pointer(smooth),
                                                     .scale = scale_pointer(scale),
                                                     .values = values.get(),
                                                     .metadata = static_cast<uint8_t*>(metadata.get()),
                                                     .token_scale = static_cast<float*>(token_scale.get()),
                                                     .workspace = workspace.get(),
                                                     .output = output.mutable_data_ptr()},
                                                    current_stream(op.x));
  check(error.empty(), error);
  return torch::stable::view(torch::stable::narrow(output, 0, 0, tokens), sizes);
}

}  // namespace

Tensor sparse_linear_cuda(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                          const std::optional<Tensor>& scale, const std::string& pattern, const std::string& rescale,
                          const std::string& kernel) {
  check_weight_dtype(x, weight);
  return sparse_linear({x, weight, bias, scale, std::nullopt, std::nullopt, cuda::Operands::k16bit,
                        checked_pattern(pattern), checked_rescale(rescale), kernel});
}

Tensor sparse_linear_w8a8_cuda(const Tensor& x, const Tensor& weight, const Tensor& weight_scale,
                               const std::optional<Tensor>& bias, const std::optional<Tensor>& smooth,
                               const std::optional<Tensor>& scale, const std::string& pattern,
                               const std::string& rescale, const std::string& kernel) {
  const ScalarType weight_type = weight.scalar_type();
  check(weight_type == ScalarType::Char || weight_type == ScalarType::Float8_e4m3fn, "weight: dtype ",
        torch::headeronly::toString(weight_type), " is not supported; allowed: int8, float8_e4m3fn");
  const auto operands = weight_type == ScalarType::Char ? cuda::Operands::kInt8 : cuda::Operands::kE4m3;
  return sparse_linear({x, weight, bias, scale, smooth, weight_scale, operands, checked_pattern(pattern),
                        checked_rescale(rescale), kernel});
}

}  // namespace amber::ops
