#include "amber/catalogue.h"

#include "amber/cuda/sparse_gemm_list.h"

namespace amber {

std::vector<KernelEntry> kernel_catalogue() {
  std::vector<KernelEntry> kernels;
#if defined(AMBER_X86)
  kernels.push_back({"prune", "cpu", "AVX-512", "N:M, M in 2 4 8 16 32", "fp32 fp16 bf16"});
  kernels.push_back({"prune", "cpu", "AVX2", "N:M, M in 2 4 8 16 32", "fp32 fp16 bf16"});
#endif
  kernels.push_back({"prune", "cpu", "portable", "N:M, 1 <= N <= M <= 32", "fp32 fp16 bf16"});
#if defined(AMBER_X86)
  kernels.push_back({"quantize", "cpu", "AVX-512", "N:M, 1 <= N <= M <= 32", "fp32 fp16 bf16 to int8 e4m3"});
  kernels.push_back({"quantize", "cpu", "AVX2", "N:M, 1 <= N <= M <= 32", "fp32 fp16 bf16 to int8 e4m3"});
#endif
  kernels.push_back({"quantize", "cpu", "portable", "N:M, 1 <= N <= M <= 32", "fp32 fp16 bf16 to int8 e4m3"});
  kernels.push_back({"compress_2_4", "cpu", "portable", "2:4", "16-bit 8-bit"});
#if defined(AMBER_WITH_CUDA)
  kernels.push_back({"prune", "cuda", "any", "N:M, 1 <= N <= M <= 32", "fp32 fp16 bf16"});
  kernels.push_back({"prune_compress", "cuda", "any", "2:4", "fp16 bf16"});
  kernels.push_back({"quantize", "cuda", "any", "N:M, 1 <= N <= M <= 32", "fp32 fp16 bf16 to int8 e4m3"});
  kernels.push_back({"quantize_compress", "cuda", "any", "2:4", "fp16 bf16 to int8 e4m3"});
#define AMBER_ENTRY_SM90(name) kernels.push_back({"sparse_gemm " #name, "cuda", "SM90", "2:4", "by name"});
#define AMBER_ENTRY_SM80(name) kernels.push_back({"sparse_gemm " #name, "cuda", "SM80", "2:4", "by name"});
  AMBER_SPARSE_GEMMS_SM90(AMBER_ENTRY_SM90)
  AMBER_SPARSE_GEMMS_SM80(AMBER_ENTRY_SM80)
#endif
  return kernels;
}

}  // namespace amber
