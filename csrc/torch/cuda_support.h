// What the CUDA operators share: current stream, device guard, no synchronisation, memory from torch.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "amber/cuda/aligned.h"
#include "amber/cuda/cuda_error.h"
#include "checks.h"

// Weak, so that the one library also loads under a CPU build of torch, which has no such symbol.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);

namespace amber::ops {

using torch::stable::accelerator::DeviceGuard;

inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) fail(what, ": ", cuda::describe_cuda_error(error));
}

inline cudaStream_t current_stream(const Tensor& x) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

inline int device_attribute(cudaDeviceAttr attribute, const Tensor& x) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, attribute, x.get_device_index()), "cudaDeviceGetAttribute");
  return value;
}

inline int device_arch(const Tensor& x) {
  return device_attribute(cudaDevAttrComputeCapabilityMajor, x) * 10 +
         device_attribute(cudaDevAttrComputeCapabilityMinor, x);
}

inline void check_device(const char* name, const Tensor& tensor, const Tensor& x) {
  check(tensor.is_cuda() && tensor.get_device_index() == x.get_device_index(), name,
        ": it must be on x's device, cuda:", x.get_device_index());
}

// Contiguous and 16-byte aligned, as the kernels read it.
inline Tensor kernel_input(const Tensor& tensor) {
  const Tensor contiguous = torch::stable::contiguous(tensor);
  return cuda::aligned(contiguous.const_data_ptr()) ? contiguous : torch::stable::clone(contiguous);
}

// One factor a column. Values on a GPU are not read here: that would synchronise.
inline std::optional<Tensor> checked_factors(const char* name, const std::optional<Tensor>& factors, const Tensor& x,
                                             int64_t cols) {
  if (!factors) return std::nullopt;
  check_factors(name, *factors, cols);
  check_device(name, *factors, x);
  return kernel_input(*factors);
}

inline const float* scale_pointer(const std::optional<Tensor>& scale) {
  return scale ? static_cast<const float*>(scale->const_data_ptr()) : nullptr;
}

// Memory of a plan's, on x's device; null for 0 bytes.
class Scratch {
 public:
  Scratch(const Tensor& x, int64_t bytes) {
    if (bytes > 0) memory_ = torch::stable::new_empty(x, {bytes}, ScalarType::Byte);
  }
  void* get() const { return memory_ ? memory_->mutable_data_ptr() : nullptr; }

 private:
  std::optional<Tensor> memory_;
};

}  // namespace amber::ops
