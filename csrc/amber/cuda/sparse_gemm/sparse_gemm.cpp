#include "amber/cuda/sparse_gemm/sparse_gemm.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "amber/cuda/sparse_gemm/list.h"

namespace amber::cuda {

#define AMBER_DECLARE(name) extern const SparseGemmKernel name;
#define AMBER_ADDRESS(name) &name,
#define AMBER_LEAVE_OUT(name)
#define AMBER_SPARSE_GEMMS(KERNEL, TUNING) \
  AMBER_SPARSE_GEMMS_SM100(KERNEL, TUNING) \
  AMBER_SPARSE_GEMMS_SM90(KERNEL, TUNING)  \
  AMBER_SPARSE_GEMMS_SM89(KERNEL, TUNING)  \
  AMBER_SPARSE_GEMMS_SM80(KERNEL, TUNING)
#if defined(AMBER_ALL_KERNELS)
#define AMBER_EVERY_SPARSE_GEMM(DO) AMBER_SPARSE_GEMMS(DO, DO)
#else
#define AMBER_EVERY_SPARSE_GEMM(DO) AMBER_SPARSE_GEMMS(DO, AMBER_LEAVE_OUT)
#endif

AMBER_EVERY_SPARSE_GEMM(AMBER_DECLARE)

bool SparseGemmDescriptor::runs_on(int capability) const {
  const bool known =
      std::find(std::begin(kCapabilities), std::end(kCapabilities), capability) != std::end(kCapabilities);
  const bool has_mma_sp = capability / 10 == 8 || capability / 10 == 12;
  const bool has_instructions = arch == 80   ? has_mma_sp
                                : arch == 89 ? has_mma_sp && capability >= 89
                                             : capability == arch;
  return known && has_instructions && shared_memory <= shared_memory_limit(capability);
}

std::vector<int> SparseGemmDescriptor::capabilities() const {
  std::vector<int> found;
  for (int capability : kCapabilities) {
    if (runs_on(capability)) found.push_back(capability);
  }
  return found;
}

const std::vector<const SparseGemmKernel*>& sparse_gemm_kernels() {
  static const std::vector<const SparseGemmKernel*> kernels{AMBER_EVERY_SPARSE_GEMM(AMBER_ADDRESS)};
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
