// What is said of CUDA's errors. Needs no GPU.
#include "amber/cuda/cuda_error.h"

#include <gtest/gtest.h>

namespace {

using namespace amber::cuda;

constexpr CudaVersions kVersions{13000, 12080, 89, "8.0 9.0a"};

TEST(CudaError, AnOldDriverIsNamedWithTheOneThatIsNeeded) {
  EXPECT_EQ(
      describe_cuda_error(cudaErrorInsufficientDriver, kVersions),
      "the driver is for CUDA 12.8, but amber_ext was built with CUDA 13.0, which needs driver 580 or newer; update "
      "the driver, or build with an older CUDA toolkit");
  CudaVersions versions = kVersions;
  versions.build = 12060, versions.driver = 0;
  EXPECT_EQ(
      describe_cuda_error(cudaErrorInsufficientDriver, versions),
      "there is no driver, but amber_ext was built with CUDA 12.6, which needs driver 525 or newer; update the driver, "
      "or build with an older CUDA toolkit");
  versions.build = 14010;
  EXPECT_NE(describe_cuda_error(cudaErrorInsufficientDriver, versions).find("CUDA 14.1, which needs a newer one; "),
            std::string::npos);
}

TEST(CudaError, AMissingKernelIsNamedWithWhatTheBuildHas) {
  for (cudaError_t error : {cudaErrorNoKernelImageForDevice, cudaErrorUnsupportedPtxVersion}) {
    EXPECT_EQ(
        describe_cuda_error(error, kVersions),
        std::string("no kernel for compute capability 8.9; amber_ext was built for 8.0 9.0a, and its PTX for other "
                    "GPUs needs a driver for CUDA 13.0 (the driver is for CUDA 12.8; ") +
            cudaGetErrorString(error) + ")");
  }
}

TEST(CudaError, OthersAreCudasOwnWords) {
  EXPECT_EQ(describe_cuda_error(cudaErrorInvalidValue, kVersions), "CUDA error: invalid argument");
  EXPECT_EQ(describe_cuda_error(cudaErrorInvalidValue), "CUDA error: invalid argument");
}

}  // namespace
