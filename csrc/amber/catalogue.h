// What this build contains, for `amber-ext info`.
#pragma once

#include <vector>

namespace amber {

struct KernelEntry {
  const char* name;
  const char* device;    // "cpu" or "cuda"
  const char* target;    // instruction set or architecture
  const char* patterns;
  const char* dtypes;
};

std::vector<KernelEntry> kernel_catalogue();

}  // namespace amber
