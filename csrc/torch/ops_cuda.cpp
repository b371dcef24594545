// The operators on CUDA: current stream, device guard, no synchronisation, memory from torch.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "amber/cuda/masked/prune.h"
#include "amber/cuda/masked/prune_quantize.h"
#include "amber/cuda/masked/quantize.h"
#include "cuda_support.h"
#include "dense_linear.h"
#include "kernel_choice.h"
#include "sparse_linear_cuda.h"

namespace amber::ops {
namespace {

void run_prune(const Tensor& x, const std::optional<Tensor>& scale, Pattern pattern, Rescale rescale, void* pruned,
               void* mask) {
  const int64_t cols = checked_columns(x, pattern);
  const auto contiguous_scale = checked_factors("scale", scale, x, cols);
  if (x.numel() == 0) return;
  const DeviceGuard guard(x.get_device_index());
  check_cuda(cuda::prune({x.const_data_ptr(), scale_pointer(contiguous_scale), pruned, static_cast<uint8_t*>(mask),
                          x.numel() / cols, cols, pattern, activation_dtype(x), rescale},
                         current_stream(x)),
             "prune");
}

}  // namespace

Tensor nm_mask_cuda(Tensor x, std::optional<Tensor> scale, std::string pattern_text) {
  activation_dtype(x);
  const Pattern pattern = checked_pattern(pattern_text);
  const Tensor input = torch::stable::contiguous(x);
  Tensor mask = torch::stable::new_empty(input, sizes_of(input), ScalarType::Bool);
  run_prune(input, scale, pattern, Rescale::kNone, nullptr, mask.mutable_data_ptr());
  return mask;
}

Tensor nm_prune_cuda(Tensor x, std::optional<Tensor> scale, std::string pattern_text, std::string rescale) {
  activation_dtype(x);
  const Pattern pattern = checked_pattern(pattern_text);
  const Rescale rescale_kind = checked_rescale(rescale);
  const Tensor input = torch::stable::contiguous(x);
  Tensor pruned = torch::stable::new_empty(input, sizes_of(input));
  run_prune(input, scale, pattern, rescale_kind, pruned.mutable_data_ptr(), nullptr);
  return pruned;
}

Tensor linear_cuda(Tensor x, Tensor weight, std::optional<Tensor> bias, std::optional<Tensor> scale,
                   std::string pattern_text, std::string rescale, std::vector<std::string> kernels,
                   std::vector<int64_t> thresholds) {
  const std::string& kernel = kernel_for(x, kernels, thresholds);
  if (kernel != kMaskedDense && kernel != kDense) {
    return sparse_linear_cuda(x, weight, bias, scale, pattern_text, rescale, kernel);
  }
  const Pattern pattern = checked_pattern(pattern_text);
  const int64_t cols = checked_columns(x, pattern);
  const Tensor columns = dense_weight(weight, pattern, cols);
  check_linear(x, columns, bias, cols);
  check_device("weight", weight, x);
  if (bias) check_device("bias", *bias, x);
  return dense_linear(kernel == kDense ? x : nm_prune_cuda(x, scale, pattern_text, rescale), columns, bias);
}

Tensor linear_w8a8_cuda(Tensor x, Tensor weight, Tensor weight_scale, std::optional<Tensor> bias,
                        std::optional<Tensor> smooth, std::optional<Tensor> scale, std::string pattern_text,
                        std::string rescale, std::vector<std::string> kernels, std::vector<int64_t> thresholds) {
  const std::string& kernel = kernel_for(x, kernels, thresholds);
  if (kernel != kMaskedDense && kernel != kDense) {
    return sparse_linear_w8a8_cuda(x, weight, weight_scale, bias, smooth, scale, pattern_text, rescale, kernel);
  }
  const Pattern pattern = checked_pattern(pattern_text);
  const Tensor columns = dense_weight(weight, pattern, checked_columns(x, pattern));
  return masked_dense_w8a8(x, columns, weight_scale, bias, smooth, scale, kernel == kDense ? kUnpruned : pattern_text,
                           rescale);
}

std::tuple<Tensor, Tensor> quantize_activations_cuda(Tensor x, std::optional<Tensor> smooth,
                                                     std::optional<Tensor> scale, std::string pattern_text,
                                                     std::string rescale, std::string dtype) {
  QuantizeArgs args{};
  args.dtype = activation_dtype(x);
  args.pattern = checked_pattern(pattern_text);
  args.rescale = checked_rescale(rescale);
  args.type = checked_quantized_type(dtype);
  args.cols = checked_columns(x, args.pattern);
  args.rows = args.cols == 0 ? 0 : x.numel() / args.cols;
  const cuda::PruneQuantizePlan plan = cuda::plan_prune_quantize(args);
  check(plan.refusal.empty(), plan.refusal);
  const auto smooth_factors = checked_factors("smooth", smooth, x, args.cols);
  const auto scale_factors = checked_factors("scale", scale, x, args.cols);
  const Tensor input = kernel_input(x);
  std::vector<int64_t> sizes = sizes_of(input);
  Tensor values = torch::stable::new_empty(input, sizes, scalar_type(args.type));
  sizes.pop_back();
  if (x.numel() == 0) return {values, torch::stable::new_zeros(input, sizes, ScalarType::Float)};

  Tensor token_scale = torch::stable::new_empty(input, sizes, ScalarType::Float);
  const Scratch pruned(input, plan.pruned_bytes);
  args.x = input.const_data_ptr();
  args.smooth = scale_pointer(smooth_factors);
  args.scale = scale_pointer(scale_factors);
  args.values = values.mutable_data_ptr();
  args.token_scale = static_cast<float*>(token_scale.mutable_data_ptr());
  const DeviceGuard guard(x.get_device_index());
  const std::string error = cuda::run_prune_quantize(args, pruned.get(), current_stream(x));
  check(error.empty(), error);
  return {values, token_scale};
}

Tensor dequantize_cuda(Tensor product, Tensor token_scale, Tensor weight_scale, std::optional<Tensor> bias,
                       std::string dtype) {
  const DequantizeShape shape = check_dequantize(product, token_scale, weight_scale, bias, dtype);
  check_device("token_scale", token_scale, product);
  check_device("weight_scale", weight_scale, product);
  if (bias) check_device("bias", *bias, product);
  check(shape.cols % cuda::kQuantizeVector == 0, "product: N = ", shape.cols, " is not a multiple of ",
        cuda::kQuantizeVector, ", which the CUDA kernel needs");
  const Tensor input = kernel_input(product);
  const Tensor rows_scale = torch::stable::contiguous(token_scale);
  const Tensor cols_scale = kernel_input(weight_scale);
  std::optional<Tensor> bias_row;
  if (bias) bias_row = torch::stable::contiguous(*bias);
  Tensor y = torch::stable::new_empty(input, sizes_of(input), scalar_type(shape.dtype));
  const DeviceGuard guard(product.get_device_index());
  check_cuda(
      cuda::dequantize(
          {static_cast<const int32_t*>(input.const_data_ptr()), static_cast<const float*>(rows_scale.const_data_ptr()),
           static_cast<const float*>(cols_scale.const_data_ptr()), bias_row ? bias_row->const_data_ptr() : nullptr,
           y.mutable_data_ptr(), shape.rows, shape.cols, shape.dtype},
          current_stream(product)),
      "dequantize");
  return y;
}

}  // namespace amber::ops

STABLE_TORCH_LIBRARY_IMPL(amber, CUDA, library) {
  library.impl("nm_mask", TORCH_BOX(&amber::ops::nm_mask_cuda));
  library.impl("nm_prune", TORCH_BOX(&amber::ops::nm_prune_cuda));
  library.impl("linear", TORCH_BOX(&amber::ops::linear_cuda));
  library.impl("linear_w8a8", TORCH_BOX(&amber::ops::linear_w8a8_cuda));
  library.impl("quantize_activations", TORCH_BOX(&amber::ops::quantize_activations_cuda));
  library.impl("dequantize", TORCH_BOX(&amber::ops::dequantize_cuda));
}
