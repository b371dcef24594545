// How instructions reach memory: addresses, checks, and the counts of accesses.
#pragma once

#include <string>

#include "instructions/decode.h"
#include "machine/shared_memory.h"

namespace emu {

// Op::space, and what Op::flags has.
enum Space : u8 { kGeneric, kGlobal, kShared, kLocal, kParameter, kConstant };
enum : u8 { kAddress64 = 1, kSigned = 2, kFill = 4 };

// The allocation that holds `address`, or null; quick for the allocations that were asked for last.
Allocation* find_allocation(Memory& memory, u64 address);
// Checks that bytes of global memory that are read were written, and marks them.
void touch(const Warp& w, int lane, Allocation& a, u64 address, u32 bytes, bool write);

inline void lane_addresses(const Warp& w, const Op& o, u64* t) {
  if (o.flags & kAddress64) {
    const u64* a = w.row<u64>(o.a);
    for (int i = 0; i < kLanes; ++i) t[i] = a[i] + static_cast<u64>(o.offset);
  } else {
    const u32* a = w.row<u32>(o.a);
    const u32 offset = static_cast<u32>(o.offset);
    for (int i = 0; i < kLanes; ++i) t[i] = static_cast<u32>(a[i] + offset);
  }
}

// Pointers of the active lanes to `bytes` each, checked and counted.
void resolve(Warp& w, const Op& o, u32 m, u32 bytes, bool write, u8** p);

void count_global(Warp& w, const u64* address, u32 m, u32 bytes, bool write);
// Wavefronts: for each group of lanes that move 128 bytes together, the most words that fall into one bank.
void count_shared(SharedStats& s, const u32* address, u32 m, u32 bytes);

Space space_of(const Instruction& in);

}  // namespace emu
