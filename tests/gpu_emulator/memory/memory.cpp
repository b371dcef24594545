// Allocations and their shadows.
#include "memory/memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace emu {
namespace {
constexpr u64 kGuard = 512;  // between allocations, so that an overrun hits none
}

u64 Memory::allocate(u64 bytes, const char* kind, bool written) {
  const u64 padded = (bytes + 511) / 512 * 512 + 2 * kGuard;
  auto* block = static_cast<u8*>(std::aligned_alloc(512, padded));
  if (!block) return 0;
  std::memset(block, 0xcd, padded);
  Allocation a;
  a.base = reinterpret_cast<u64>(block) + kGuard;
  a.bytes = bytes;
  a.shadow = static_cast<u8*>(std::calloc(bytes + 64, 1));
  if (written) std::memset(a.shadow, kWritten, bytes);
  a.kind = kind;
  allocations_[a.base] = a;
  ++generation_;
  total_ += bytes;
  return a.base;
}

bool Memory::release(u64 base) {
  const auto found = allocations_.find(base);
  if (found == allocations_.end()) return false;
  total_ -= found->second.bytes;
  std::free(found->second.shadow);
  std::free(reinterpret_cast<void*>(base - kGuard));
  allocations_.erase(found);
  ++generation_;
  return true;
}

void Memory::adopt(u64 base, u64 bytes, const char* kind) {
  Allocation a;
  a.base = base;
  a.bytes = bytes;
  a.shadow = static_cast<u8*>(std::malloc(bytes + 64));
  std::memset(a.shadow, kWritten, bytes + 64);
  a.kind = kind;
  a.read_only = true;
  allocations_[base] = a;
  ++generation_;
}

Allocation* Memory::find(u64 address) {
  auto above = allocations_.upper_bound(address);
  if (above == allocations_.begin()) return nullptr;
  Allocation& a = (--above)->second;
  return address < a.base + a.bytes ? &a : nullptr;
}

void Memory::mark(u64 address, u64 bytes, bool written) {
  Allocation* a = find(address);
  if (!a) return;
  const u64 from = address - a->base, count = std::min(bytes, a->bytes - from);
  for (u64 i = from; i < from + count; ++i) {
    a->shadow[i] = written ? a->shadow[i] | kWritten : a->shadow[i] & static_cast<u8>(~kWritten);
  }
}

Allocation* Memory::use(u64 address) {
  Allocation* a = find(address);
  if (a) a->used = true;
  return a;
}

Footprint Memory::take_footprint() {
  constexpr u64 kEach = 0x0101010101010101;
  Footprint total;
  for (auto& [base, a] : allocations_) {
    if (!a.used || a.read_only) continue;
    a.used = false;
    // The shadow is longer than its allocation: whole words.
    for (u64 i = 0; i < a.bytes; i += 8) {
      u64 word;
      std::memcpy(&word, a.shadow + i, 8);
      total.loaded += static_cast<u64>(__builtin_popcountll(word & kEach * kLoaded));
      total.stored += static_cast<u64>(__builtin_popcountll(word & kEach * kStored));
      word &= kEach * kWritten;
      std::memcpy(a.shadow + i, &word, 8);
    }
  }
  ++generation_;
  return total;
}

}  // namespace emu
