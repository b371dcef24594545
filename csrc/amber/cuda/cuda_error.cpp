#include "amber/cuda/cuda_error.h"

#include "amber/cuda/line.h"

namespace amber::cuda {
namespace {

std::string version(int number) { return line(number / 1000, ".", number % 1000 / 10); }

// The oldest driver that runs programs of this CUDA, from the release notes of the toolkits; "" where it is not known
// here.
const char* oldest_driver(int build) { return build / 1000 == 13 ? "580" : build / 1000 == 12 ? "525" : ""; }

std::string driver_in_words(int driver) {
  return driver == 0 ? "there is no driver" : line("the driver is for CUDA ", version(driver));
}

}  // namespace

std::string describe_cuda_error(cudaError_t error, const CudaVersions& versions) {
  switch (error) {
    case cudaErrorInsufficientDriver: {
      const std::string oldest = oldest_driver(versions.build);
      return line(driver_in_words(versions.driver), ", but amber_ext was built with CUDA ", version(versions.build),
                  oldest.empty() ? ", which needs a newer one" : ", which needs driver " + oldest + " or newer",
                  "; update the driver, or build with an older CUDA toolkit");
    }
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorInvalidKernelImage:
    case cudaErrorJitCompilerNotFound:
    case cudaErrorUnsupportedPtxVersion: {
      const int capability = versions.capability;
      return line("no kernel for compute capability ", capability / 10, ".", capability % 10,
                  "; amber_ext was built for ", versions.compiled,
                  ", and its PTX for other GPUs needs a driver for CUDA ", version(versions.build), " (",
                  driver_in_words(versions.driver), "; ", cudaGetErrorString(error), ")");
    }
    default:
      return line("CUDA error: ", cudaGetErrorString(error));
  }
}

std::string describe_cuda_error(cudaError_t error) {
  CudaVersions versions{CUDART_VERSION, 0, 0, AMBER_CUDA_ARCH_TEXT};
  int device = 0, major = 0, minor = 0;
  if (cudaDriverGetVersion(&versions.driver) != cudaSuccess) versions.driver = 0;
  if (cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess) {
    versions.capability = major * 10 + minor;
  }
  return describe_cuda_error(error, versions);
}

}  // namespace amber::cuda
