// What the kernels ask of pointers: most of them read and write 16 bytes at a time.
#pragma once

#include <cstdint>

namespace amber::cuda {

inline bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// Follows the argument's name in an error.
inline constexpr const char* kReadInPlace = ": it must be contiguous and 16-byte aligned";

}  // namespace amber::cuda
