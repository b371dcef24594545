// The operators on CUDA: current stream, device guard, no synchronisation, memory from torch.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "amber/cuda/prune.h"
#include "amber/cuda/prune_compress.h"
#include "amber/cuda/sparse_gemm.h"
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

// The values of a CUDA scale are not read here: that would synchronise.
std::optional<Tensor> checked_scale(const std::optional<Tensor>& scale, const Tensor& x, int64_t cols) {
  if (!scale) return std::nullopt;
  check_scale_shape(*scale, cols);
  check_device("scale", *scale, x);
  return kernel_input(*scale);
}

const float* scale_pointer(const std::optional<Tensor>& scale) {
  return scale ? static_cast<const float*>(scale->const_data_ptr()) : nullptr;
}

void run_prune(const Tensor& x, const std::optional<Tensor>& scale, Pattern pattern,
               cpu::Rescale rescale, void* pruned, void* mask) {
  const int64_t cols = checked_columns(x, pattern);
  const auto contiguous_scale = checked_scale(scale, x, cols);
  if (x.numel() == 0) return;
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  check_cuda(cuda::prune({x.const_data_ptr(), scale_pointer(contiguous_scale), pruned,
                          static_cast<uint8_t*>(mask), x.numel() / cols, cols, pattern,
                          activation_dtype(x), rescale},
                         current_stream(x)),
             "prune");
}

const cuda::SparseGemmKernel& sparse_gemm_named(const std::string& name, const Tensor& x) {
  const int arch = device_arch(x);
  const DType dtype = activation_dtype(x);
  const cuda::SparseGemmKernel* kernel = name == kDefaultSparseGemm
                                             ? cuda::default_sparse_gemm(arch, dtype)
                                             : cuda::find_sparse_gemm(name.c_str());
  check(kernel != nullptr, "kernel: '", name, "' is not in this build for compute capability ", arch / 10,
        ".", arch % 10, " and dtype ", torch::headeronly::toString(x.scalar_type()),
        "; `amber-ext info` lists what is");
  check(kernel->runs_on(arch), "kernel: '", name, "' is for SM", kernel->arch,
        ", but the device has compute capability ", arch / 10, ".", arch % 10);
  check(kernel->dtype == dtype, "kernel: '", name, "' does not take dtype ",
        torch::headeronly::toString(x.scalar_type()));
  return *kernel;
}

// `x` is [T, K], contiguous and not empty.
Tensor sparse_linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                     const std::optional<Tensor>& scale, const cuda::SparseGemmKernel& kernel) {
  const int64_t t = x.size(0), k = x.size(1), n = weight.size(0);
  check(k % kernel.in_features_multiple == 0, "x: its last dimension K = ", k,
        " is not a multiple of ", kernel.in_features_multiple, ", which ", kernel.name, " needs");
  check(n % kernel.out_features_multiple == 0, "weight: its first dimension N = ", n,
        " is not a multiple of ", kernel.out_features_multiple, ", which ", kernel.name, " needs");
  check(t <= INT32_MAX && n <= INT32_MAX && k <= INT32_MAX, "x: ", t, " tokens are too many; allowed: ",
        INT32_MAX);
  // The weight is read where it lies: a copy of it would cost more than pruning saves.
  check(weight.is_contiguous() && aligned(weight.const_data_ptr()),
        "weight: it must be contiguous and 16-byte aligned");
  check(!bias || (bias->is_contiguous() && aligned(bias->const_data_ptr())),
        "bias: it must be contiguous and 16-byte aligned");

  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const cudaStream_t stream = current_stream(x);
  const int64_t buffer_rows = kernel.padded_rows ? metadata_rows(kernel.layout, t) : t;
  const std::vector<int64_t> value_sizes{buffer_rows, k / 2}, output_sizes{buffer_rows, n};
  Tensor values = torch::stable::new_empty(x, value_sizes);
  Tensor metadata =
      torch::stable::new_empty(x, {metadata_bytes(kernel.layout, t, k)}, ScalarType::Byte);
  Tensor output = torch::stable::new_empty(x, output_sizes);
  check_cuda(cuda::prune_compress({x.const_data_ptr(), scale_pointer(scale), values.mutable_data_ptr(),
                                   static_cast<uint8_t*>(metadata.mutable_data_ptr()), t, k, buffer_rows,
                                   activation_dtype(x), kernel.layout},
                                  stream),
             "prune_compress");

  cuda::SparseGemmArgs args{values.const_data_ptr(),
                            static_cast<const uint8_t*>(metadata.const_data_ptr()),
                            weight.const_data_ptr(),
                            bias ? bias->const_data_ptr() : nullptr,
                            output.mutable_data_ptr(),
                            t,
                            n,
                            k,
                            device_attribute(cudaDevAttrMultiProcessorCount, x)};
  const auto workspace_bytes = static_cast<int64_t>(kernel.workspace_bytes(args));
  Tensor workspace = torch::stable::new_empty(x, {workspace_bytes}, ScalarType::Byte);
  const cuda::GemmStatus status = kernel.run(args, workspace.mutable_data_ptr(), stream);
  check(status == cuda::GemmStatus::kOk, "kernel: '", kernel.name, "' failed for T = ", t, ", N = ", n,
        ", K = ", k, ": ", cuda::describe(status), " (", cudaGetErrorString(cudaGetLastError()), ")");
  return torch::stable::narrow(output, 0, 0, t);
}

}  // namespace

Tensor nm_mask_cuda(Tensor x, std::optional<Tensor> scale, int64_t n, int64_t m) {
  activation_dtype(x);
  const Pattern pattern = checked_pattern(n, m);
  const Tensor input = torch::stable::contiguous(x);
  Tensor mask = torch::stable::new_empty(input, sizes_of(input), ScalarType::Bool);
  run_prune(input, scale, pattern, cpu::Rescale::kNone, nullptr, mask.mutable_data_ptr());
  return mask;
}

Tensor nm_prune_cuda(Tensor x, std::optional<Tensor> scale, int64_t n, int64_t m, std::string rescale) {
  activation_dtype(x);
  const Pattern pattern = checked_pattern(n, m);
  const cpu::Rescale rescale_kind = checked_rescale(rescale);
  const Tensor input = torch::stable::contiguous(x);
  Tensor pruned = torch::stable::new_empty(input, sizes_of(input));
  run_prune(input, scale, pattern, rescale_kind, pruned.mutable_data_ptr(), nullptr);
  return pruned;
}

Tensor linear_cuda(Tensor x, Tensor weight, std::optional<Tensor> bias, std::optional<Tensor> scale,
                   int64_t n, int64_t m, std::string rescale, std::string kernel) {
  const Pattern pattern = checked_pattern(n, m);
  const int64_t cols = checked_columns(x, pattern);
  check_linear(x, weight, bias);
  check_device("weight", weight, x);
  if (bias) check_device("bias", *bias, x);
  if (kernel == kMaskedDense) return dense_linear(nm_prune_cuda(x, scale, n, m, rescale), weight, bias);

  const cuda::SparseGemmKernel& sparse_gemm = sparse_gemm_named(kernel, x);
  check(pattern == Pattern{2, 4}, "pattern: ", n, ":", m, " does not run on a sparse GEMM; allowed: 2:4");
  check(checked_rescale(rescale) == cpu::Rescale::kNone,
        "rescale: 'variance' does not run on a sparse GEMM; allowed: 'none'");
  const auto contiguous_scale = checked_scale(scale, x, cols);
  std::vector<int64_t> sizes = sizes_of(x);
  sizes.back() = weight.size(0);
  if (x.numel() == 0 || weight.size(0) == 0) return dense_linear(x, weight, bias);
  const Tensor tokens = torch::stable::view(kernel_input(x), {x.numel() / cols, cols});
  return torch::stable::view(
      sparse_linear(tokens, weight, bias, contiguous_scale, sparse_gemm), sizes);
}

}  // namespace amber::ops

STABLE_TORCH_LIBRARY_IMPL(amber, CUDA, library) {
  library.impl("nm_mask", TORCH_BOX(&amber::ops::nm_mask_cuda));
  library.impl("nm_prune", TORCH_BOX(&amber::ops::nm_prune_cuda));
  library.impl("linear", TORCH_BOX(&amber::ops::linear_cuda));
}
