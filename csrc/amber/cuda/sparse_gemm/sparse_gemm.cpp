#include "amber/cuda/sparse_gemm/sparse_gemm.h"

#include <cstring>

#include "amber/cuda/sparse_gemm/list.h"

namespace amber::cuda {

#define AMBER_DECLARE(name) extern const SparseGemmKernel name;
#define AMBER_ADDRESS(name) &name,

AMBER_SPARSE_GEMMS_SM90(AMBER_DECLARE)
AMBER_SPARSE_GEMMS_SM80(AMBER_DECLARE)

const std::vector<const SparseGemmKernel*>& sparse_gemm_kernels() {
  static const std::vector<const SparseGemmKernel*> kernels{AMBER_SPARSE_GEMMS_SM90(AMBER_ADDRESS)
                                                                AMBER_SPARSE_GEMMS_SM80(AMBER_ADDRESS)};
  return kernels;
}

const SparseGemmKernel* find_sparse_gemm(const char* name) {
  for (const SparseGemmKernel* kernel : sparse_gemm_kernels()) {
    if (std::strcmp(kernel->name, name) == 0) return kernel;
  }
  return nullptr;
}

const SparseGemmKernel* default_sparse_gemm(int arch, Operands operands, DType dtype) {
  for (const SparseGemmKernel* kernel : sparse_gemm_kernels()) {
    if (kernel->runs_on(arch) && kernel->operands == operands && kernel->dtype == dtype) return kernel;
  }
  return nullptr;
}

}  // namespace amber::cuda
