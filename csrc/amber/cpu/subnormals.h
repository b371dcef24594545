// Subnormal numbers count, whatever mode the calling thread is in.
#pragma once

#if defined(AMBER_X86)
#include <xmmintrin.h>
#endif

namespace amber::cpu {

// torch.set_flush_denormal(True) makes a thread take subnormal numbers for 0 (DAZ) and round to 0 what would become one
// (FTZ). It does so for the calling thread alone: rows of one tensor would be pruned in two ways. While this lives,
// neither is on.
class KeepSubnormals {
 public:
#if defined(AMBER_X86)
  KeepSubnormals() : before_(_mm_getcsr()) {
    if (before_ & kFlushes) _mm_setcsr(before_ & ~kFlushes);
  }
  ~KeepSubnormals() {
    if (before_ & kFlushes) _mm_setcsr(before_);
  }
#else
  KeepSubnormals() {}
  ~KeepSubnormals() {}
#endif
  KeepSubnormals(const KeepSubnormals&) = delete;
  KeepSubnormals& operator=(const KeepSubnormals&) = delete;

#if defined(AMBER_X86)
 private:
  static constexpr unsigned kFlushes = 0x8040;  // FTZ and DAZ
  const unsigned before_;
#endif
};

}  // namespace amber::cpu
