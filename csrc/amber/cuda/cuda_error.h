// CUDA's errors in one line. Those that are about what a build is for, and not about a kernel, say what is there.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

namespace amber::cuda {

struct CudaVersions {
  int build;             // of CUDA, as CUDART_VERSION: major * 1000 + minor * 10
  int driver;            // the newest CUDA it is for, in the same form; 0: there is none
  int capability;        // of the current device, major * 10 + minor; 0: not known
  const char* compiled;  // architectures of this build: "8.0 9.0a"
};

std::string describe_cuda_error(cudaError_t error, const CudaVersions& versions);

// On this machine.
std::string describe_cuda_error(cudaError_t error);

}  // namespace amber::cuda
