// The operators on CUDA: current stream, device guard, no synchronisation, memory from torch.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>

#include "amber/cuda/prune.h"
#include "amber/cuda/prune_compress.h"
#include "amber/cuda/quantize.h"
#include "amber/cuda/quantize_compress.h"
#include "amber/cuda/sparse_gemm.h"
#include "amber/window.h"
#include "checks.h"
#include "dense_linear.h"

// Weak, so that the one library also loads under a CPU build of torch, which has no such symbol.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);

namespace amber::ops {
namespace {

// The value of linear's argument `kernel` that takes the build's default sparse GEMM for the device.
constexpr const char* kDefaultSparseGemm = "sparse_gemm";

void check_cuda(cudaError_t error, const char* what) {
  check(error == cudaSuccess, what, ": CUDA error: ", cudaGetErrorString(error));
}

cudaStream_t current_stream(const Tensor& x) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

int device_attribute(cudaDeviceAttr attribute, const Tensor& x) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, attribute, x.get_device_index()), "cudaDeviceGetAttribute");
  return value;
}

int device_arch(const Tensor& x) {
  return device_attribute(cudaDevAttrComputeCapabilityMajor, x) * 10 +
         device_attribute(cudaDevAttrComputeCapabilityMinor, x);
}

void check_device(const char* name, const Tensor& tensor, const Tensor& x) {
  check(tensor.is_cuda() && tensor.get_device_index() == x.get_device_index(), name,
        ": it must be on x's device, cuda:", x.get_device_index());
}

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// Contiguous and 16-byte aligned, as the kernels read it.
Tensor kernel_input(const Tensor& tensor) {
  const Tensor contiguous = torch::stable::contiguous(tensor);
  return aligned(contiguous.const_data_ptr()) ? contiguous : torch::stable::clone(contiguous);
}

// One factor a column. Values on a GPU are not read here: that would synchronise.
std::optional<Tensor> checked_factors(const char* name, const std::optional<Tensor>& factors, const Tensor& x,
                                      int64_t cols) {
  if (!factors) return std::nullopt;
  check_factors(name, *factors, cols);
  check_device(name, *factors, x);
  return kernel_input(*factors);
}

const float* scale_pointer(const std::optional<Tensor>& scale) {
  return scale ? static_cast<const float*>(scale->const_data_ptr()) : nullptr;
}

void run_prune(const Tensor& x, const std::optional<Tensor>& scale, Pattern pattern,
               cpu::Rescale rescale, void* pruned, void* mask) {
  const int64_t cols = checked_columns(x, pattern);
  const auto contiguous_scale = checked_factors("scale", scale, x, cols);
  if (x.numel() == 0) return;
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  check_cuda(cuda::prune({x.const_data_ptr(), scale_pointer(contiguous_scale), pruned,
                          static_cast<uint8_t*>(mask), x.numel() / cols, cols, pattern,
                          activation_dtype(x), rescale},
                         current_stream(x)),
             "prune");
}

const cuda::SparseGemmKernel& sparse_gemm_named(const std::string& name, const Tensor& x,
                                                cuda::Operands operands) {
  const int arch = device_arch(x);
  const DType dtype = activation_dtype(x);
  const cuda::SparseGemmKernel* kernel = name == kDefaultSparseGemm
                                             ? cuda::default_sparse_gemm(arch, operands, dtype)
                                             : cuda::find_sparse_gemm(name.c_str());
  check(kernel != nullptr, "kernel: '", name, "' is not in this build for compute capability ", arch / 10,
        ".", arch % 10, ", ", cuda::describe(operands), " operands and dtype ",
        torch::headeronly::toString(x.scalar_type()), "; `amber-ext info` lists what is");
  check(kernel->runs_on(arch), "kernel: '", name, "' is for SM", kernel->arch,
        ", but the device has compute capability ", arch / 10, ".", arch % 10);
  check(kernel->dtype == dtype && kernel->operands == operands, "kernel: '", name, "' does not take ",
        cuda::describe(operands), " operands and dtype ", torch::headeronly::toString(x.scalar_type()));
  return *kernel;
}

// Columns of the weight that a sparse GEMM takes: K', copies included.
int64_t sparse_weight_cols(Pattern pattern, const std::string& pattern_text, int64_t cols) {
  const int extra = extra_windows(pattern);
  check(extra >= 0, "pattern: '", pattern_text,
        "' does not run on a sparse GEMM; allowed: '2:4', '4:8', '8:16', '10:16w', '12:16w'");
  return widened_cols(cols, extra);
}

// `x` is [T, K].
void check_sparse_shape(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, Pattern pattern,
                        const cuda::SparseGemmKernel& kernel) {
  const int64_t t = x.size(0), k = x.size(1), n = weight.size(0);
  // The compressing kernels take 32 columns at a time where there are copies to fill.
  const int64_t multiple =
      extra_windows(pattern) == 0 ? kernel.in_features_multiple : std::max<int64_t>(32, kernel.in_features_multiple);
  check(k % multiple == 0, "x: its last dimension K = ", k, " is not a multiple of ", multiple, ", which ", kernel.name,
        " needs");
  check(n % kernel.out_features_multiple == 0, "weight: its first dimension N = ", n,
        " is not a multiple of ", kernel.out_features_multiple, ", which ", kernel.name, " needs");
  check(t <= INT32_MAX && n <= INT32_MAX && weight.size(1) <= INT32_MAX, "x: ", t, " tokens are too many; allowed: ",
        INT32_MAX);
  // The weight is read where it lies: a copy of it would cost more than pruning saves.
  check(weight.is_contiguous() && aligned(weight.const_data_ptr()),
        "weight: it must be contiguous and 16-byte aligned");
  check(!bias || (bias->is_contiguous() && aligned(bias->const_data_ptr())),
        "bias: it must be contiguous and 16-byte aligned");
}

// What the compressing kernels write and a sparse GEMM reads.
struct Compressed {
  Tensor values;
  Tensor metadata;
  int64_t rows;  // of `values` and of the output, padding included
  std::optional<Tensor> token_scale;
};

// `k` is that of the widened product.
Compressed new_compressed(const Tensor& x, int64_t k, const cuda::SparseGemmKernel& kernel,
                          std::optional<ScalarType> value_type = std::nullopt) {
  const int64_t t = x.size(0);
  const int64_t rows = kernel.padded_rows ? metadata_rows(kernel.layout, t) : t;
  return {torch::stable::new_empty(x, {rows, k / 2}, value_type),
          torch::stable::new_empty(x, {metadata_bytes(kernel.layout, t, k)}, ScalarType::Byte), rows, std::nullopt};
}

Tensor run_sparse_gemm(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                       const Compressed& compressed, const std::optional<Tensor>& weight_scale,
                       const cuda::SparseGemmKernel& kernel, cudaStream_t stream) {
  const int64_t t = x.size(0), k = weight.size(1), n = weight.size(0);
  Tensor output = torch::stable::new_empty(x, {compressed.rows, n});
  cuda::SparseGemmArgs args{compressed.values.const_data_ptr(),
                            static_cast<const uint8_t*>(compressed.metadata.const_data_ptr()),
                            weight.const_data_ptr(),
                            bias ? bias->const_data_ptr() : nullptr,
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
  check(status == cuda::GemmStatus::kOk, "kernel: '", kernel.name, "' failed for T = ", t, ", N = ", n,
        ", K = ", k, ": ", cuda::describe(status), " (", cudaGetErrorString(cudaGetLastError()), ")");
  return torch::stable::narrow(output, 0, 0, t);
}

// `x` is [T, K], contiguous and not empty.
Tensor sparse_linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                     const std::optional<Tensor>& scale, Pattern pattern, const cuda::SparseGemmKernel& kernel) {
  check_sparse_shape(x, weight, bias, pattern, kernel);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const cudaStream_t stream = current_stream(x);
  Compressed compressed = new_compressed(x, weight.size(1), kernel);
  check_cuda(cuda::prune_compress({x.const_data_ptr(), scale_pointer(scale), compressed.values.mutable_data_ptr(),
                                   static_cast<uint8_t*>(compressed.metadata.mutable_data_ptr()), x.size(0),
                                   x.size(1), compressed.rows, activation_dtype(x), kernel.layout, pattern},
                                  stream),
             "prune_compress");
  return run_sparse_gemm(x, weight, bias, compressed, std::nullopt, kernel, stream);
}

QuantizedType quantized_type(const Tensor& weight) {
  if (weight.scalar_type() == ScalarType::Char) return QuantizedType::kInt8;
  if (weight.scalar_type() == ScalarType::Float8_e4m3fn) return QuantizedType::kE4m3;
  fail("weight: dtype ", torch::headeronly::toString(weight.scalar_type()),
       " is not supported; allowed: int8, float8_e4m3fn");
}

}  // namespace

Tensor nm_mask_cuda(Tensor x, std::optional<Tensor> scale, std::string pattern_text) {
  activation_dtype(x);
  const Pattern pattern = checked_pattern(pattern_text);
  const Tensor input = torch::stable::contiguous(x);
  Tensor mask = torch::stable::new_empty(input, sizes_of(input), ScalarType::Bool);
  run_prune(input, scale, pattern, cpu::Rescale::kNone, nullptr, mask.mutable_data_ptr());
  return mask;
}

Tensor nm_prune_cuda(Tensor x, std::optional<Tensor> scale, std::string pattern_text, std::string rescale) {
  activation_dtype(x);
  const Pattern pattern = checked_pattern(pattern_text);
  const cpu::Rescale rescale_kind = checked_rescale(rescale);
  const Tensor input = torch::stable::contiguous(x);
  Tensor pruned = torch::stable::new_empty(input, sizes_of(input));
  run_prune(input, scale, pattern, rescale_kind, pruned.mutable_data_ptr(), nullptr);
  return pruned;
}

Tensor linear_cuda(Tensor x, Tensor weight, std::optional<Tensor> bias, std::optional<Tensor> scale,
                   std::string pattern_text, std::string rescale, std::string kernel) {
  const Pattern pattern = checked_pattern(pattern_text);
  const int64_t cols = checked_columns(x, pattern);
  const bool masked_dense = kernel == kMaskedDense;
  check_linear(x, weight, bias, masked_dense ? cols : sparse_weight_cols(pattern, pattern_text, cols));
  check_device("weight", weight, x);
  if (bias) check_device("bias", *bias, x);
  if (masked_dense) return dense_linear(nm_prune_cuda(x, scale, pattern_text, rescale), weight, bias);

  const cuda::SparseGemmKernel& sparse_gemm = sparse_gemm_named(kernel, x, cuda::Operands::k16bit);
  check(checked_rescale(rescale) == cpu::Rescale::kNone,
        "rescale: 'variance' does not run on a sparse GEMM; allowed: 'none'");
  const auto contiguous_scale = checked_factors("scale", scale, x, cols);
  std::vector<int64_t> sizes = sizes_of(x);
  sizes.back() = weight.size(0);
  if (cols == 0) return dense_linear(x, weight, bias);
  if (x.numel() == 0 || weight.size(0) == 0) return torch::stable::new_empty(x, sizes);
  const Tensor tokens = torch::stable::view(kernel_input(x), {x.numel() / cols, cols});
  return torch::stable::view(
      sparse_linear(tokens, weight, bias, contiguous_scale, pattern, sparse_gemm), sizes);
}

std::tuple<Tensor, Tensor> quantize_activations_cuda(Tensor x, std::optional<Tensor> smooth,
                                                     std::optional<Tensor> scale, std::string pattern_text,
                                                     std::string rescale, std::string dtype) {
  const Pattern pattern = checked_pattern(pattern_text);
  const cpu::Rescale rescale_kind = checked_rescale(rescale);
  const QuantizedType type = checked_quantized_type(dtype);
  const int64_t cols = checked_columns(x, pattern);
  check(cols % 8 == 0, "x: its last dimension K = ", cols, " is not a multiple of 8, which the CUDA kernel needs");
  const auto factors = checked_factors("smooth", smooth, x, cols);
  const Tensor input = kernel_input(x);
  std::vector<int64_t> sizes = sizes_of(input);
  Tensor values = torch::stable::new_empty(input, sizes, scalar_type(type));
  sizes.pop_back();
  Tensor token_scale = torch::stable::new_empty(input, sizes, ScalarType::Float);
  if (x.numel() == 0) return {values, token_scale};

  const bool sparse = pattern.n < pattern.m;
  const Tensor pruned = sparse ? nm_prune_cuda(input, scale, pattern_text, "none") : input;
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const cpu::QuantizeArgs args{pruned.const_data_ptr(),
                               scale_pointer(factors),
                               nullptr,
                               values.mutable_data_ptr(),
                               static_cast<float*>(token_scale.mutable_data_ptr()),
                               x.numel() / cols,
                               cols,
                               pattern,
                               activation_dtype(x),
                               sparse ? rescale_kind : cpu::Rescale::kNone,
                               type};
  check_cuda(cuda::quantize_pruned(args, input.const_data_ptr(), current_stream(x)), "quantize_activations");
  return {values, token_scale};
}

Tensor dequantize_cuda(Tensor product, Tensor token_scale, Tensor weight_scale, std::optional<Tensor> bias,
                       std::string dtype) {
  const DequantizeShape shape = check_dequantize(product, token_scale, weight_scale, bias, dtype);
  check_device("token_scale", token_scale, product);
  check_device("weight_scale", weight_scale, product);
  if (bias) check_device("bias", *bias, product);
  check(shape.cols % 8 == 0, "product: N = ", shape.cols, " is not a multiple of 8, which the CUDA kernel needs");
  const Tensor input = kernel_input(product);
  const Tensor rows_scale = torch::stable::contiguous(token_scale);
  const Tensor cols_scale = kernel_input(weight_scale);
  std::optional<Tensor> bias_row;
  if (bias) bias_row = torch::stable::contiguous(*bias);
  Tensor y = torch::stable::new_empty(input, sizes_of(input), shape.type);
  const torch::stable::accelerator::DeviceGuard guard(product.get_device_index());
  check_cuda(cuda::dequantize({static_cast<const int32_t*>(input.const_data_ptr()),
                               static_cast<const float*>(rows_scale.const_data_ptr()),
                               static_cast<const float*>(cols_scale.const_data_ptr()),
                               bias_row ? bias_row->const_data_ptr() : nullptr, y.mutable_data_ptr(), shape.rows,
                               shape.cols, shape.dtype},
                              current_stream(product)),
             "dequantize");
  return y;
}

Tensor sparse_linear_w8a8_cuda(Tensor x, Tensor weight, Tensor weight_scale, std::optional<Tensor> bias,
                               std::optional<Tensor> smooth, std::optional<Tensor> scale,
                               std::string pattern_text, std::string rescale, std::string kernel_name) {
  const Pattern pattern = checked_pattern(pattern_text);
  const int64_t cols = checked_columns(x, pattern), n = weight.size(0);
  check(cols > 0, "x: its last dimension K is 0; at least 1 channel is needed");
  const QuantizedType type = quantized_type(weight);
  const bool rescaled = checked_rescale(rescale) == cpu::Rescale::kVariance;
  const int64_t weight_cols = sparse_weight_cols(pattern, pattern_text, cols);
  check(weight.dim() == 2 && weight.size(1) == weight_cols, "weight: shape ", shape(weight),
        " does not match x and the pattern; allowed: [N, ", weight_cols, "]");
  check_device("weight", weight, x);
  check_factors("weight_scale", weight_scale, n);
  check_device("weight_scale", weight_scale, x);
  if (bias) {
    check_device("bias", *bias, x);
    check(bias->dim() == 1 && bias->size(0) == n && bias->scalar_type() == x.scalar_type(), "bias: shape ",
          shape(*bias), " does not match; allowed: [", n, "] of x's dtype");
  }
  const cuda::SparseGemmKernel& kernel = sparse_gemm_named(
      kernel_name, x, type == QuantizedType::kInt8 ? cuda::Operands::kInt8 : cuda::Operands::kE4m3);
  const auto factors = checked_factors("smooth", smooth, x, cols);
  const auto selection = checked_factors("scale", scale, x, cols);
  check(cols <= cuda::kMaxQuantizeColumns, "x: its last dimension K = ", cols, " is too large; allowed: up to ",
        cuda::kMaxQuantizeColumns);
  std::vector<int64_t> sizes = sizes_of(x);
  sizes.back() = n;
  if (x.numel() == 0 || n == 0) return torch::stable::new_empty(x, sizes);

  const Tensor tokens = torch::stable::view(kernel_input(x), {x.numel() / cols, cols});
  check_sparse_shape(tokens, weight, bias, pattern, kernel);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const cudaStream_t stream = current_stream(x);
  Compressed compressed = new_compressed(tokens, weight_cols, kernel, scalar_type(type));
  compressed.token_scale = torch::stable::new_empty(tokens, {compressed.rows}, ScalarType::Float);
  check_cuda(
      cuda::quantize_compress({tokens.const_data_ptr(), scale_pointer(factors), scale_pointer(selection),
                               compressed.values.mutable_data_ptr(),
                               static_cast<uint8_t*>(compressed.metadata.mutable_data_ptr()),
                               static_cast<float*>(compressed.token_scale->mutable_data_ptr()), tokens.size(0), cols,
                               compressed.rows, activation_dtype(x), kernel.layout, type, rescaled, pattern},
                              stream),
      "quantize_compress");
  return torch::stable::view(
      run_sparse_gemm(tokens, weight, bias, compressed, kernel_input(weight_scale), kernel, stream), sizes);
}

}  // namespace amber::ops

STABLE_TORCH_LIBRARY_IMPL(amber, CUDA, library) {
  library.impl("nm_mask", TORCH_BOX(&amber::ops::nm_mask_cuda));
  library.impl("nm_prune", TORCH_BOX(&amber::ops::nm_prune_cuda));
  library.impl("linear", TORCH_BOX(&amber::ops::linear_cuda));
  library.impl("quantize_activations", TORCH_BOX(&amber::ops::quantize_activations_cuda));
  library.impl("dequantize", TORCH_BOX(&amber::ops::dequantize_cuda));
  library.impl("sparse_linear_w8a8", TORCH_BOX(&amber::ops::sparse_linear_w8a8_cuda));
}
