// The operators on the CPU.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "amber/cpu/product/scaled_product.h"
#include "amber/cpu/prune/prune.h"
#include "amber/cpu/quantize/quantize.h"
#include "checks.h"
#include "cpu/cpu_support.h"
#include "dense_linear.h"
#include "kernel_choice.h"

namespace amber::ops {
namespace {

// As many multiplications of a product are worth a thread.
constexpr int64_t kGrainProducts = 1 << 18;

struct Outputs {
  void* pruned = nullptr;
  uint8_t* mask = nullptr;
};

// `x` is contiguous; outputs have its shape.
void run(const Tensor& x, const std::optional<Tensor>& scale, Pattern pattern, Rescale rescale, Outputs outputs) {
  const int64_t cols = checked_columns(x, pattern);
  const std::optional<Tensor> contiguous_scale = checked_factors("scale", scale, cols);
  if (x.numel() == 0) return;

  const PruneArgs args{x.const_data_ptr(),
                       pointer(contiguous_scale),
                       outputs.pruned,
                       outputs.mask,
                       x.numel() / cols,
                       cols,
                       pattern,
                       activation_dtype(x),
                       rescale};
  const Status status = cpu::validate(args);
  check(status == Status::kOk, describe(status));
  for_rows(args.rows, cols, [&](int64_t begin, int64_t end) { cpu::prune_rows(args, begin, end); });
}

Tensor prune(const Tensor& x, const std::optional<Tensor>& scale, Pattern pattern, const std::string& rescale) {
  activation_dtype(x);
  const Rescale rescale_kind = checked_rescale(rescale);
  const Tensor input = torch::stable::contiguous(x);
  Tensor pruned = torch::stable::empty_like(input);
  run(input, scale, pattern, rescale_kind, {pruned.mutable_data_ptr(), nullptr});
  return pruned;
}

const std::string& dense_kernel_for(const Tensor& x, const std::vector<std::string>& kernels,
                                    const std::vector<int64_t>& thresholds) {
  const std::string& kernel = kernel_for(x, kernels, thresholds);
  check(kernel == kMaskedDense || kernel == kDense, "kernels: '", kernel, "' does not run on the CPU; allowed: '",
        kMaskedDense, "', '", kDense, "'");
  return kernel;
}

}  // namespace

Tensor nm_mask_cpu(Tensor x, std::optional<Tensor> scale, std::string pattern_text) {
  activation_dtype(x);
  const Pattern pattern = checked_pattern(pattern_text);
  const Tensor input = torch::stable::contiguous(x);
  Tensor mask = torch::stable::new_empty(input, sizes_of(input), ScalarType::Bool);
  run(input, scale, pattern, Rescale::kNone, {nullptr, static_cast<uint8_t*>(mask.mutable_data_ptr())});
  return mask;
}

Tensor nm_prune_cpu(Tensor x, std::optional<Tensor> scale, std::string pattern_text, std::string rescale) {
  return prune(x, scale, checked_pattern(pattern_text), rescale);
}

Tensor linear_cpu(Tensor x, Tensor weight, std::optional<Tensor> bias, std::optional<Tensor> scale,
                  std::string pattern_text, std::string rescale, std::vector<std::string> kernels,
                  std::vector<int64_t> thresholds) {
  const std::string& kernel = dense_kernel_for(x, kernels, thresholds);
  const Pattern pattern = checked_pattern(pattern_text);
  const int64_t cols = checked_columns(x, pattern);
  const Tensor columns = dense_weight(weight, pattern, cols);
  check_linear(x, columns, bias, cols);
  return dense_linear(kernel == kDense ? x : prune(x, scale, pattern, rescale), columns, bias);
}

Tensor linear_w8a8_cpu(Tensor x, Tensor weight, Tensor weight_scale, std::optional<Tensor> bias,
                       std::optional<Tensor> smooth, std::optional<Tensor> scale, std::string pattern_text,
                       std::string rescale, std::vector<std::string> kernels, std::vector<int64_t> thresholds) {
  const std::string& kernel = dense_kernel_for(x, kernels, thresholds);
  const Pattern pattern = checked_pattern(pattern_text);
  const Tensor columns = dense_weight(weight, pattern, checked_columns(x, pattern));
  return masked_dense_w8a8(x, columns, weight_scale, bias, smooth, scale, kernel == kDense ? kUnpruned : pattern_text,
                           rescale);
}

std::tuple<Tensor, Tensor> quantize_activations_cpu(Tensor x, std::optional<Tensor> smooth, std::optional<Tensor> scale,
                                                    std::string pattern_text, std::string rescale, std::string dtype) {
  const DType x_dtype = activation_dtype(x);
  const Pattern pattern = checked_pattern(pattern_text);
  const Rescale rescale_kind = checked_rescale(rescale);
  const QuantizedType type = checked_quantized_type(dtype);
  const int64_t cols = checked_columns(x, pattern);
  const auto factors = checked_factors("smooth", smooth, cols);
  const auto contiguous_scale = checked_factors("scale", scale, cols);
  const Tensor input = torch::stable::contiguous(x);
  std::vector<int64_t> sizes = sizes_of(input);
  Tensor values = torch::stable::new_empty(input, sizes, scalar_type(type));
  sizes.pop_back();
  if (x.numel() == 0) return {values, torch::stable::new_zeros(input, sizes, ScalarType::Float)};

  Tensor token_scale = torch::stable::new_empty(input, sizes, ScalarType::Float);
  const QuantizeArgs args{input.const_data_ptr(),
                          pointer(factors),
                          pointer(contiguous_scale),
                          values.mutable_data_ptr(),
                          static_cast<float*>(token_scale.mutable_data_ptr()),
                          x.numel() / cols,
                          cols,
                          pattern,
                          x_dtype,
                          rescale_kind,
                          type};
  const Status status = cpu::validate(args);
  check(status == Status::kOk, describe(status));
  for_rows(args.rows, cols, [&](int64_t begin, int64_t end) { cpu::quantize_rows(args, begin, end); });
  return {values, token_scale};
}

Tensor dequantize_cpu(Tensor product, Tensor token_scale, Tensor weight_scale, std::optional<Tensor> bias,
                      std::string dtype) {
  const DequantizeShape shape = check_dequantize(product, token_scale, weight_scale, bias, dtype);
  const Tensor input = torch::stable::contiguous(product);
  const Tensor rows_scale = torch::stable::contiguous(token_scale);
  const Tensor cols_scale = torch::stable::contiguous(weight_scale);
  std::optional<Tensor> bias_row;
  if (bias) bias_row = torch::stable::contiguous(*bias);
  Tensor y = torch::stable::new_empty(input, sizes_of(input), scalar_type(shape.dtype));
  if (input.numel() == 0) return y;
  const DequantizeArgs args{static_cast<const int32_t*>(input.const_data_ptr()),
                            static_cast<const float*>(rows_scale.const_data_ptr()),
                            static_cast<const float*>(cols_scale.const_data_ptr()),
                            bias_row ? bias_row->const_data_ptr() : nullptr,
                            y.mutable_data_ptr(),
                            shape.rows,
                            shape.cols,
                            shape.dtype};
  for_rows(args.rows, args.cols, [&](int64_t begin, int64_t end) { cpu::dequantize_rows(args, begin, end); });
  return y;
}

Tensor scaled_product_cpu(Tensor values, Tensor token_scale, Tensor weight, Tensor weight_scale,
                          std::optional<Tensor> bias, std::string dtype) {
  const DequantizeShape shape = check_scaled_product(values, token_scale, weight, weight_scale, bias, dtype);
  const Tensor a = torch::stable::contiguous(values);
  // Rows may lie apart, as those of a weight with copies of its columns do.
  const Tensor w = weight.stride(1) == 1 ? weight : torch::stable::contiguous(weight);
  const Tensor rows_scale = torch::stable::contiguous(token_scale);
  const Tensor cols_scale = torch::stable::contiguous(weight_scale);
  std::optional<Tensor> bias_row;
  if (bias) bias_row = torch::stable::contiguous(*bias);
  Tensor y = torch::stable::new_empty(a, {shape.rows, shape.cols}, scalar_type(shape.dtype));
  const cpu::ScaledProductArgs args{static_cast<const int8_t*>(a.const_data_ptr()),
                                    static_cast<const float*>(rows_scale.const_data_ptr()),
                                    static_cast<const int8_t*>(w.const_data_ptr()),
                                    static_cast<const float*>(cols_scale.const_data_ptr()),
                                    bias_row ? bias_row->const_data_ptr() : nullptr,
                                    y.mutable_data_ptr(),
                                    shape.rows,
                                    shape.cols,
                                    a.size(1),
                                    w.stride(0),
                                    shape.dtype};
  const Status status = cpu::validate(args);
  check(status == Status::kOk, "scaled_product: ", describe(status));
  if (y.numel() == 0) return y;
  const int64_t tasks = cpu::scaled_product_tasks(args);
  const int64_t products = shape.rows * shape.cols * std::max<int64_t>(1, args.in_features) / tasks;
  torch::stable::parallel_for(0, tasks, std::max<int64_t>(1, kGrainProducts / std::max<int64_t>(1, products)),
                              [&](int64_t begin, int64_t end) { cpu::scaled_product(args, begin, end); });
  return y;
}

}  // namespace amber::ops

STABLE_TORCH_LIBRARY_IMPL(amber, CPU, library) {
  library.impl("nm_mask", TORCH_BOX(&amber::ops::nm_mask_cpu));
  library.impl("nm_prune", TORCH_BOX(&amber::ops::nm_prune_cpu));
  library.impl("linear", TORCH_BOX(&amber::ops::linear_cpu));
  library.impl("linear_w8a8", TORCH_BOX(&amber::ops::linear_w8a8_cpu));
  library.impl("quantize_activations", TORCH_BOX(&amber::ops::quantize_activations_cpu));
  library.impl("dequantize", TORCH_BOX(&amber::ops::dequantize_cpu));
  library.impl("scaled_product", TORCH_BOX(&amber::ops::scaled_product_cpu));
}
