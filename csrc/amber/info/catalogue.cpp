#include "amber/info/catalogue.h"

#include <sstream>

#include "amber/cuda/sparse_gemm/sparse_gemm.h"
#include "amber/pattern_names.h"

namespace amber {

std::vector<KernelEntry> kernel_catalogue() {
  const std::string windowed = sparse_pattern_names(", ", "", true);
  const std::string any = "N:M, 1 <= N <= M <= 32, " + windowed;
  [[maybe_unused]] const std::string vectorised = "N:M, M in 2 4 8 16 32, " + windowed;
  std::vector<KernelEntry> kernels;
#if defined(AMBER_X86)
  kernels.push_back({"prune", "cpu", "AVX-512", vectorised, "fp32 fp16 bf16"});
  kernels.push_back({"prune", "cpu", "AVX2", vectorised, "fp32 fp16 bf16"});
#endif
  kernels.push_back({"prune", "cpu", "portable", any, "fp32 fp16 bf16"});
#if defined(AMBER_X86)
  kernels.push_back({"quantize", "cpu", "AVX-512", any, "fp32 fp16 bf16 to int8 e4m3"});
  kernels.push_back({"quantize", "cpu", "AVX2", any, "fp32 fp16 bf16 to int8 e4m3"});
#endif
  kernels.push_back({"quantize", "cpu", "portable", any, "fp32 fp16 bf16 to int8 e4m3"});
#if defined(AMBER_X86)
  kernels.push_back({"scaled_product", "cpu", "AVX-512 VNNI", any, "int8 to fp32 fp16 bf16"});
#endif
  kernels.push_back({"compress_2_4", "cpu", "portable", "2:4", "16-bit 8-bit"});
#if defined(AMBER_WITH_CUDA)
  const std::string sparse = sparse_pattern_names(" ", "");
  kernels.push_back({"prune", "cuda", "any", any, "fp32 fp16 bf16"});
  kernels.push_back({"prune_compress", "cuda", "any", sparse, "fp16 bf16"});
  kernels.push_back({"quantize", "cuda", "any", any, "fp32 fp16 bf16 to int8 e4m3"});
  kernels.push_back({"quantize_compress", "cuda", "any", sparse, "fp16 bf16 to int8 e4m3"});
  for (const cuda::SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    const std::string output = kernel->dtype == DType::kFloat16 ? "fp16" : "bf16";
    const bool quantized = kernel->operands != cuda::Operands::k16bit;
    kernels.push_back({kernel->name, "cuda", "SM" + std::to_string(kernel->arch), sparse,
                       quantized ? describe(kernel->operands) + (" to " + output) : output});
  }
#endif
  return kernels;
}

std::string sparse_gemms_json() {
  std::ostringstream json;
  json << '[';
  const char* separator = "";
  for (const cuda::SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    json << separator << "{\"name\": \"" << kernel->name << "\", \"arch\": " << kernel->arch << ", \"capabilities\": [";
    const char* comma = "";
    for (int capability : kernel->capabilities()) {
      json << comma << capability;
      comma = ", ";
    }
    json << "], \"operands\": \"" << cuda::describe(kernel->operands) << "\", \"dtype\": \"" << describe(kernel->dtype)
         << "\", \"tile\": [" << kernel->tile.m << ", " << kernel->tile.n << ", " << kernel->tile.k
         << "], \"in_features_multiple\": " << kernel->in_features_multiple
         << ", \"copies_in_features_multiple\": " << kernel->copies_in_features_multiple << ", \"max_in_features\": ";
    if (kernel->max_in_features == cuda::kUnlimited) {
      json << "null";
    } else {
      json << kernel->max_in_features;
    }
    json << ", \"out_features_multiple\": " << kernel->out_features_multiple
         << ", \"rescales\": " << (kernel->rescales ? "true" : "false") << '}';
    separator = ", ";
  }
  json << ']';
  return json.str();
}

}  // namespace amber
