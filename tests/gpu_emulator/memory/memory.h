// Device memory: host memory whose every byte has a shadow.
#pragma once

#include <map>

#include "ptx/numeric.h"

namespace emu {

// Flags of a shadow byte.
enum : u8 { kWritten = 1, kLoaded = 2, kStored = 4 };

struct Allocation {
  u64 base = 0, bytes = 0;
  u8* shadow = nullptr;
  const char* kind = "cudaMalloc";
  bool read_only = false;
  bool used = false;  // by a kernel since the last footprint
};

struct Footprint {
  u64 loaded = 0, stored = 0;
};

class Memory {
 public:
  u64 allocate(u64 bytes, const char* kind, bool written = false);
  bool release(u64 base);
  // The allocation that holds `address`, or null.
  Allocation* find(u64 address);
  void mark(u64 address, u64 bytes, bool written);
  // The same for a kernel's access: the allocation is one that the next footprint looks at.
  Allocation* use(u64 address);
  // Distinct bytes that kernels loaded and stored since the last call.
  Footprint take_footprint();
  // Registers memory that the emulator does not own (parameters).
  void adopt(u64 base, u64 bytes, const char* kind);
  // Changes when a pointer that find() or use() returned is no longer good.
  u64 generation() const { return generation_; }
  u64 total() const { return total_; }

 private:
  std::map<u64, Allocation> allocations_;  // by base
  u64 generation_ = 1, total_ = 0;
};

}  // namespace emu
