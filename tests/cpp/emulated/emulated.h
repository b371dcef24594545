// What the tests that only the emulated GPU can run share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

#include "amber/cuda/sparse_gemm/sparse_gemm.h"
#include "gpu_emulator.h"
#include "support.h"

namespace amber::gpu_test {

// Other settings until the end of a scope.
class ScopedSettings {
 public:
  explicit ScopedSettings(const gpu_emulator::Settings& settings) : before_(gpu_emulator::settings()) {
    gpu_emulator::set_settings(settings);
  }
  ~ScopedSettings() { gpu_emulator::set_settings(before_); }
  ScopedSettings(const ScopedSettings&) = delete;
  ScopedSettings& operator=(const ScopedSettings&) = delete;

 private:
  gpu_emulator::Settings before_;
};

// Whether exactly one launch since the last call was stopped because it broke a rule. Its error is reported, too.
inline bool was_stopped() {
  const uint64_t violations = gpu_emulator::take_violations();
  const bool failed = cudaDeviceSynchronize() != cudaSuccess;
  cudaGetLastError();
  EXPECT_LE(violations, 1u);
  EXPECT_EQ(failed, violations > 0);
  return violations == 1;
}

struct KernelCase {
  const cuda::SparseGemmKernel* kernel;

  std::string name() const { return kernel->name; }
};

// Those of the build that are for one of `archs`: CTest leaves out what the emulated GPU does not run.
inline std::vector<KernelCase> kernel_cases(std::initializer_list<int> archs) {
  std::vector<KernelCase> all;
  for (const cuda::SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    if (std::count(archs.begin(), archs.end(), kernel->arch) > 0) all.push_back({kernel});
  }
  return all;
}

class EmulatedKernel : public testing::TestWithParam<KernelCase> {
 protected:
  void SetUp() override {
    if (!kernel().runs_on(device_arch())) {
      GTEST_SKIP() << kernel().name << " is not for compute capability " << device_arch() / 10.0;
    }
  }
  const cuda::SparseGemmKernel& kernel() const { return *GetParam().kernel; }
};

#define AMBER_INSTANTIATE_KERNELS(Suite, ...)           \
  GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Suite); \
  INSTANTIATE_TEST_SUITE_P(, Suite, testing::ValuesIn(kernel_cases({__VA_ARGS__})), ByName())

}  // namespace amber::gpu_test
