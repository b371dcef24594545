// What this build contains, for `amber-ext info` and for what chooses a kernel.
#pragma once

#include <string>
#include <vector>

namespace amber {

struct KernelEntry {
  std::string name;
  std::string device;  // "cpu" or "cuda"
  std::string target;  // instruction set or architecture
  std::string patterns;
  std::string dtypes;
};

std::vector<KernelEntry> kernel_catalogue();

// The descriptors of the sparse GEMMs (cuda/sparse_gemm/sparse_gemm.h), a JSON array of one object each.
std::string sparse_gemms_json();

}  // namespace amber
