// Fused producers of compressed forms on CUDA, and the product of a form.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "../cuda_support.h"
#include "../kernel_choice.h"
#include "amber/cuda/linear/compressed_form.h"
#include "amber/cuda/linear/sparse_linear.h"

namespace amber::ops {
namespace {

MetadataLayout checked_layout(const std::string& layout, bool is_8bit) {
  if (layout == "sm80") return is_8bit ? MetadataLayout::kSm80_8bit : MetadataLayout::kSm80_16bit;
  if (layout == "sm90") return is_8bit ? MetadataLayout::kSm90_8bit : MetadataLayout::kSm90_16bit;
  fail("layout: '", layout, "' does not run on CUDA; allowed: 'sm80', 'sm90'");
}

cuda::Operands operands_of(const Tensor& values) {
  switch (values.scalar_type()) {
    case ScalarType::Char:
      return cuda::Operands::kInt8;
    case ScalarType::Float8_e4m3fn:
      return cuda::Operands::kE4m3;
    case ScalarType::Half:
    case ScalarType::BFloat16:
      return cuda::Operands::k16bit;
    default:
      fail("values: dtype ", torch::headeronly::toString(values.scalar_type()),
           " is not supported; allowed: float16, bfloat16, int8, float8_e4m3fn");
  }
}

// One array of a form, as the kernel reads it: where it lies.
void check_part(const char* name, const Tensor& part, ScalarType type, std::vector<int64_t> sizes,
                const Tensor& values) {
  check_device(name, part, values);
  std::ostringstream wanted;
  for (size_t i = 0; i < sizes.size(); ++i) wanted << (i ? ", " : "") << sizes[i];
  check(part.scalar_type() == type && sizes_of(part) == sizes, name, ": ",
        torch::headeronly::toString(part.scalar_type()), " ", shape(part),
        " is not that of a form in this layout; it must be ", torch::headeronly::toString(type), " [", wanted.str(),
        "]");
  check(part.is_contiguous(), name, cuda::kReadInPlace);
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> silu_mul_prune_cuda(Tensor gate, Tensor up, std::optional<Tensor> smooth,
                                                       std::optional<Tensor> scale, std::string pattern_text,
                                                       std::string rescale, std::string dtype_text,
                                                       std::string layout) {
  const DType dtype = activation_dtype(gate, "gate");
  check_gated(gate, up);
  check_device("up", up, gate);
  const Pattern pattern = checked_pattern(pattern_text);
  const auto quantized = checked_form_dtype(dtype_text, dtype);
  check(quantized || !smooth, "smooth: it is for dtype 'int8' and 'e4m3', not '", dtype_text, "'; it must be None");
  const int64_t cols = checked_columns(gate, pattern, "gate");
  const cuda::FormPlan plan = cuda::plan_form({dtype, quantized, checked_layout(layout, quantized.has_value()), pattern,
                                               checked_rescale(rescale), tokens_of(gate), cols});
  check(plan.refusal.empty(), plan.refusal);
  const auto factors = checked_factors("smooth", smooth, gate, cols);
  const auto scales = checked_factors("scale", scale, gate, cols);

  const Tensor input = kernel_input(gate), other = kernel_input(up);
  const ScalarType type = quantized ? scalar_type(*quantized) : scalar_type(dtype);
  Tensor values = torch::stable::new_empty(input, {plan.rows, plan.wide_cols / 2}, type);
  Tensor metadata = torch::stable::new_empty(input, {plan.metadata_bytes}, ScalarType::Byte);
  Tensor token_scale = torch::stable::new_empty(input, {quantized ? plan.rows : 0}, ScalarType::Float);
  const DeviceGuard guard(gate.get_device_index());
  const std::string error =
      cuda::run_silu_mul_form(plan,
                              {.gate = input.const_data_ptr(),
                               .up = other.const_data_ptr(),
                               .smooth = scale_pointer(factors),
                               .scale = scale_pointer(scales),
                               .values = values.mutable_data_ptr(),
                               .metadata = static_cast<uint8_t*>(metadata.mutable_data_ptr()),
                               .token_scale = static_cast<float*>(token_scale.mutable_data_ptr())},
                              current_stream(gate));
  check(error.empty(), error);
  return {values, metadata, token_scale};
}

Tensor sparse_linear_compressed_cuda(Tensor values, Tensor metadata, Tensor token_scale, Tensor weight,
                                     std::optional<Tensor> weight_scale, std::optional<Tensor> bias,
                                     std::string pattern_text, std::string dtype_text, std::string layout,
                                     std::vector<std::string> kernels, std::vector<int64_t> thresholds) {
  check(values.dim() == 2, "values: shape ", shape(values), " is not a matrix; allowed: [R, K' / 2]");
  const Pattern pattern = checked_pattern(pattern_text);
  const int extra = extra_windows(pattern);
  const cuda::Operands operands = operands_of(values);
  const bool is_8bit = operands != cuda::Operands::k16bit;
  const MetadataLayout wanted = checked_layout(layout, is_8bit);
  const int64_t rows = values.size(0), wide_cols = 2 * values.size(1);
  check_weight_dtype(values, weight, "values");
  check_weight_shape(weight, wide_cols);
  check(is_8bit == weight_scale.has_value(), "weight_scale: 8-bit weights have one, and no others");
  const std::string& kernel = kernel_for(values, kernels, thresholds);
  // K itself is not known of a form; K' of the columns that the copies count from is the same.
  const int64_t cols = extra > 0 ? wide_cols / (4 + extra) * 4 : wide_cols, n = weight.size(0);
  const DeviceGuard guard(values.get_device_index());
  const cuda::SparseLinearPlan plan = cuda::plan_sparse_linear(
      kernel, {device_arch(values), operands, checked_dtype(dtype_text), pattern, Rescale::kNone, rows, n, cols},
      device_attribute(cudaDevAttrMultiProcessorCount, values));
  check(plan.refusal.empty(), plan.refusal);
  check(plan.wide_cols == wide_cols && cols > 0, "values: shape ", shape(values), " is not that of a form of pattern '",
        pattern_text, "'");
  check(plan.kernel->layout == wanted, "layout: '", layout, "' is not what kernel '", plan.kernel->name, "' reads");
  const ScalarType type = scalar_type(plan.problem.dtype);
  Tensor output = torch::stable::new_empty(values, {rows, n}, type);
  if (plan.empty) return output;
  check_part("values", values, values.scalar_type(), {plan.rows, wide_cols / 2}, values);
  check_part("metadata", metadata, ScalarType::Byte, {plan.metadata_bytes}, values);
  check_part("token_scale", token_scale, ScalarType::Float, {is_8bit ? plan.rows : 0}, values);
  check_part("weight", weight, values.scalar_type(), {n, wide_cols}, values);
  if (bias) check_part("bias", *bias, type, {n}, values);
  const auto scales = checked_factors("weight_scale", weight_scale, values, n);

  const Scratch workspace(values, plan.workspace_bytes);
  cuda::SparseLinearBuffers buffers{};
  buffers.weight = weight.const_data_ptr();
  buffers.weight_scale = scale_pointer(scales);
  if (bias) buffers.bias = bias->const_data_ptr();
  buffers.values = const_cast<void*>(values.const_data_ptr());  // read alone
  buffers.metadata = static_cast<uint8_t*>(const_cast<void*>(metadata.const_data_ptr()));
  if (is_8bit) buffers.token_scale = static_cast<float*>(const_cast<void*>(token_scale.const_data_ptr()));
  buffers.workspace = workspace.get();
  buffers.output = output.mutable_data_ptr();
  const std::string error = cuda::run_sparse_product(plan, buffers, current_stream(values));
  check(error.empty(), error);
  return output;
}

}  // namespace amber::ops

STABLE_TORCH_LIBRARY_IMPL(amber, CUDA, library) {
  library.impl("silu_mul_prune", TORCH_BOX(&amber::ops::silu_mul_prune_cuda));
  library.impl("sparse_linear_compressed", TORCH_BOX(&amber::ops::sparse_linear_compressed_cuda));
}
