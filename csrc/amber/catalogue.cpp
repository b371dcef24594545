#include "amber/catalogue.h"

#include "amber/cuda/sparse_gemm_list.h"

namespace amber {

namespace {

constexpr const char* kAnyPattern = "N:M, 1 <= N <= M <= 32, 10:16w, 12:16w";
constexpr const char* kVectorPatterns = "N:M, M in 2 4 8 16 32, 10:16w, 12:16w";
constexpr const char* kSparsePatterns = "2:4 4:8 8:16 10:16w 12:16w";

}  // namespace

std::vector<KernelEntry> kernel_catalogue() {
  std::vector<KernelEntry> kernels;
#if defined(AMBER_X86)
  kernels.push_back({"prune", "cpu", "AVX-512", kVectorPatterns, "fp32 fp16 bf16"});
  kernels.push_back({"prune", "cpu", "AVX2", kVectorPatterns, "fp32 fp16 bf16"});
#endif
  kernels.push_back({"prune", "cpu", "portable", kAnyPattern, "fp32 fp16 bf16"});
#if defined(AMBER_X86)
  kernels.push_back({"quantize", "cpu", "AVX-512", kAnyPattern, "fp32 fp16 bf16 to int8 e4m3"});
  kernels.push_back({"quantize", "cpu", "AVX2", kAnyPattern, "fp32 fp16 bf16 to int8 e4m3"});
#endif
  kernels.push_back({"quantize", "cpu", "portable", kAnyPattern, "fp32 fp16 bf16 to int8 e4m3"});
  kernels.push_back({"compress_2_4", "cpu", "portable", "2:4", "16-bit 8-bit"});
#if defined(AMBER_WITH_CUDA)
  kernels.push_back({"prune", "cuda", "any", kAnyPattern, "fp32 fp16 bf16"});
  kernels.push_back({"prune_compress", "cuda", "any", kSparsePatterns, "fp16 bf16"});
  kernels.push_back({"quantize", "cuda", "any", kAnyPattern, "fp32 fp16 bf16 to int8 e4m3"});
  kernels.push_back({"quantize_compress", "cuda", "any", kSparsePatterns, "fp16 bf16 to int8 e4m3"});
#define AMBER_ENTRY_SM90(name) kernels.push_back({"sparse_gemm " #name, "cuda", "SM90", kSparsePatterns, "by name"});
#define AMBER_ENTRY_SM80(name) kernels.push_back({"sparse_gemm " #name, "cuda", "SM80", kSparsePatterns, "by name"});
  AMBER_SPARSE_GEMMS_SM90(AMBER_ENTRY_SM90)
  AMBER_SPARSE_GEMMS_SM80(AMBER_ENTRY_SM80)
#endif
  return kernels;
}

}  // namespace amber
