// Shared memory of a cluster's blocks: addresses, and accesses with their checks.
#pragma once

#include "machine/machine.h"

namespace emu {

// Shared-memory addresses are offsets; those of another block of the cluster have its rank in bits 24 up.
inline u32 remote_address(u32 rank, u32 offset) { return (rank + 1) << 24 | offset; }
inline u32 shared_offset(u32 address) { return address & 0xffffffu; }

// Generic addresses: shared and local memory have windows that no host address lies in.
constexpr u32 kSharedReserved = 1024;
constexpr u64 kSharedWindow = u64{1} << 52;
constexpr u64 kLocalWindow = u64{2} << 52;

// Checks an access of `bytes` bytes and marks them. `data`: not an mbarrier's. `tolerant`: unwritten bytes are counted.
u8* shared_pointer(Warp& w, int lane, u32 address, u32 bytes, bool write, bool data = true, bool tolerant = false);
Cta& shared_owner(Warp& w, int lane, u32 address);

// Shared memory as the asynchronous proxy (TMA, wgmma) reads it: bounds, initialisation and fences are checked.
const u8* async_read(Warp& w, Cta& cta, u32 offset, u32 bytes, const char* what);

}  // namespace emu
