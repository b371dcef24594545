#include "sparse_linear_cuda.h"

#include "amber/cuda/compress/prune_compress.h"
#include "amber/cuda/compress/quantize_compress.h"
#include "amber/cuda/sparse_gemm/refusal.h"
#include "amber/window.h"
#include "cuda_support.h"
#include "dense_linear.h"

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

// What the compressing kernels write and a sparse GEMM reads.
struct Compressed {
  Tensor values;
  Tensor metadata;
  std::optional<Tensor> token_scale;  // 8-bit operands only
  int64_t rows;                       // of `values` and of the output, padding included
};

QuantizedType quantized_type(cuda::Operands operands) {
  return operands == cuda::Operands::kInt8 ? QuantizedType::kInt8 : QuantizedType::kE4m3;
}

const cuda::SparseGemmKernel& checked_kernel(const SparseLinear& op, int64_t tokens, int64_t cols) {
  const cuda::SparseGemmChoice choice =
      cuda::choose_sparse_gemm(op.kernel, {device_arch(op.x), op.operands, activation_dtype(op.x), op.pattern,
                                           op.rescale, tokens, op.weight.size(0), cols});
  check(choice.refusal.empty(), choice.refusal);
  return *choice.kernel;
}

// The weight is read where it lies: a copy of it would cost more than pruning saves.
void check_in_place(const char* name, const Tensor& tensor) {
  check(tensor.is_contiguous() && aligned(tensor.const_data_ptr()), name,
        ": it must be contiguous and 16-byte aligned");
}

// `x` is [T, K].
Compressed compress(const SparseLinear& op, const Tensor& x, const std::optional<Tensor>& scale,
                    const std::optional<Tensor>& smooth, const cuda::SparseGemmKernel& kernel, cudaStream_t stream) {
  const int64_t t = x.size(0), cols = x.size(1), wide_cols = op.weight.size(1);
  const int64_t rows = kernel.padded_rows ? metadata_rows(kernel.layout, t) : t;
  const Tensor metadata = torch::stable::new_empty(x, {metadata_bytes(kernel.layout, t, wide_cols)}, ScalarType::Byte);
  auto* e = static_cast<uint8_t*>(metadata.mutable_data_ptr());
  if (op.operands == cuda::Operands::k16bit) {
    const Tensor values = torch::stable::new_empty(x, {rows, wide_cols / 2});
    check_cuda(cuda::prune_compress({x.const_data_ptr(), scale_pointer(scale), values.mutable_data_ptr(), e, t, cols,
                                     rows, activation_dtype(x), kernel.layout, op.pattern},
                                    stream),
               "prune_compress");
    return {values, metadata, std::nullopt, rows};
  }
  const QuantizedType type = quantized_type(op.operands);
  const Tensor values = torch::stable::new_empty(x, {rows, wide_cols / 2}, scalar_type(type));
  const Tensor token_scale = torch::stable::new_empty(x, {rows}, ScalarType::Float);
  check_cuda(cuda::quantize_compress(
                 {x.const_data_ptr(), scale_pointer(smooth), scale_pointer(scale), values.mutable_data_ptr(), e,
                  static_cast<float*>(token_scale.mutable_data_ptr()), t, cols, rows, activation_dtype(x),
                  kernel.layout, type, op.rescale == Rescale::kVariance, op.pattern},
                 stream),
             "quantize_compress");
  return {values, metadata, token_scale, rows};
}

// `x` is [T, K].
Tensor run_sparse_gemm(const SparseLinear& op, const Tensor& x, const Compressed& compressed,
                       const std::optional<Tensor>& weight_scale, const cuda::SparseGemmKernel& kernel,
                       cudaStream_t stream) {
  const int64_t t = x.size(0), n = op.weight.size(0), k = op.weight.size(1);
  Tensor output = torch::stable::new_empty(x, {compressed.rows, n});
  const cuda::SparseGemmArgs args{compressed.values.const_data_ptr(),
                                  static_cast<const uint8_t*>(compressed.metadata.const_data_ptr()),
                                  op.weight.const_data_ptr(),
                                  op.bias ? op.bias->const_data_ptr() : nullptr,
                                  output.mutable_data_ptr(),
                                  t,
                                  n,
                                  k,
                                  device_attribute(cudaDevAttrMultiProcessorCount, x),
                                  scale_pointer(compressed.token_scale),
                                  scale_pointer(weight_scale)};
  const auto workspace_bytes = static_cast<int64_t>(kernel.workspace_bytes(args));
  Tensor workspace = torch::stable::new_empty(x, {workspace_bytes}, ScalarType::Byte);
  const cuda::GemmStatus status = kernel.run(args, workspace.mutable_data_ptr(), stream);
  check(status == cuda::GemmStatus::kOk, "kernel: '", kernel.name, "' failed for T = ", t, ", N = ", n, ", K = ", k,
        ": ", cuda::describe(status), " (", cudaGetErrorString(cudaGetLastError()), ")");
  return torch::stable::narrow(output, 0, 0, t);
}

Tensor sparse_linear(const SparseLinear& op) {
  const int64_t cols = checked_columns(op.x, op.pattern);
  const int64_t tokens = cols == 0 ? 0 : op.x.numel() / cols;
  check(op.weight.dim() == 2, "weight: shape ", shape(op.weight), " is not a matrix; allowed: [N, K]");
  const int64_t n = op.weight.size(0);
  const cuda::SparseGemmKernel& kernel = checked_kernel(op, tokens, cols);
  check_weight_shape(op.weight, widened_cols(cols, extra_windows(op.pattern)));
  check_bias(op.x, op.weight, op.bias);
  check_device("weight", op.weight, op.x);
  if (op.bias) check_device("bias", *op.bias, op.x);
  const auto scale = checked_factors("scale", op.scale, op.x, cols);
  const auto smooth = checked_factors("smooth", op.smooth, op.x, cols);
  const auto weight_scale = checked_factors("weight_scale", op.weight_scale, op.x, n);

  std::vector<int64_t> sizes = sizes_of(op.x);
  sizes.back() = n;
  if (cols == 0) return dense_linear(op.x, op.weight, op.bias);
  if (tokens == 0 || n == 0) return torch::stable::new_empty(op.x, sizes);
  check_in_place("weight", op.weight);
  if (op.bias) check_in_place("bias", *op.bias);
  const Tensor x = torch::stable::view(kernel_input(op.x), {tokens, cols});
  const DeviceGuard guard(op.x.get_device_index());
  const cudaStream_t stream = current_stream(op.x);
  const Compressed compressed = compress(op, x, scale, smooth, kernel, stream);
  return torch::stable::view(run_sparse_gemm(op, x, compressed, weight_scale, kernel, stream), sizes);
}

}  // namespace

Tensor sparse_linear_cuda(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                          const std::optional<Tensor>& scale, const std::string& pattern, const std::string& rescale,
                          const std::string& kernel) {
  check_weight_dtype(x, weight);
  return sparse_linear({x, weight, bias, scale, std::nullopt, std::nullopt, cuda::Operands::k16bit,
                        checked_pattern(pattern), checked_rescale(rescale), kernel});
}

Tensor sparse_linear_w8a8_cuda(Tensor x, Tensor weight, Tensor weight_scale, std::optional<Tensor> bias,
                               std::optional<Tensor> smooth, std::optional<Tensor> scale, std::string pattern,
                               std::string rescale, std::string kernel) {
  check(x.dim() == 0 || x.size(x.dim() - 1) > 0, "x: its last dimension K is 0; at least 1 channel is needed");
  const ScalarType weight_type = weight.scalar_type();
  check(weight_type == ScalarType::Char || weight_type == ScalarType::Float8_e4m3fn, "weight: dtype ",
        torch::headeronly::toString(weight_type), " is not supported; allowed: int8, float8_e4m3fn");
  const auto operands = weight_type == ScalarType::Char ? cuda::Operands::kInt8 : cuda::Operands::kE4m3;
  return sparse_linear({x, weight, bias, scale, smooth, weight_scale, operands, checked_pattern(pattern),
                        checked_rescale(rescale), kernel});
}

}  // namespace amber::ops

STABLE_TORCH_LIBRARY_IMPL(amber, CUDA, library) {
  library.impl("sparse_linear_w8a8", TORCH_BOX(&amber::ops::sparse_linear_w8a8_cuda));
}
