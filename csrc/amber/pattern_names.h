// The names of kSparsePatterns in one line, for messages.
#pragma once

#include <string>

#include "amber/pattern.h"

namespace amber {

inline std::string sparse_pattern_names(const char* separator, const char* quote, bool only_windowed = false) {
  std::string names;
  for (const SparsePattern& sparse : kSparsePatterns) {
    if (only_windowed && !sparse.pattern.windowed) continue;
    names += (names.empty() ? "" : separator) + (quote + (sparse.name + std::string(quote)));
  }
  return names;
}

}  // namespace amber
