#include "amber/catalogue.h"

namespace amber {

std::vector<KernelEntry> kernel_catalogue() {
  std::vector<KernelEntry> kernels;
#if defined(AMBER_X86)
  kernels.push_back({"prune", "cpu", "AVX-512", "N:M, M in 2 4 8 16 32", "fp32 fp16 bf16"});
  kernels.push_back({"prune", "cpu", "AVX2", "N:M, M in 2 4 8 16 32", "fp32 fp16 bf16"});
#endif
  kernels.push_back({"prune", "cpu", "portable", "N:M, 1 <= N <= M <= 32", "fp32 fp16 bf16"});
  kernels.push_back({"compress_2_4", "cpu", "portable", "2:4", "16-bit 8-bit"});
  return kernels;
}

}  // namespace amber
