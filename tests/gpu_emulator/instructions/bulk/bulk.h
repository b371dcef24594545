// What mbarriers and bulk copies share.
#pragma once

#include <string>

#include "instructions/decode.h"
#include "machine/shared_memory.h"

namespace emu {

inline std::string number(u64 v) { return std::to_string(v); }

inline u32 address32(const Warp& w, const Op& o, int lane) {
  if (o.flags & 1) return static_cast<u32>(w.row<u64>(o.a)[lane] + static_cast<u64>(o.offset));
  return w.row<u32>(o.a)[lane] + static_cast<u32>(o.offset);
}

// `bytes` have arrived for the mbarrier at `address`.
void complete_tx(Warp& w, int lane, u32 address, u64 bytes);

}  // namespace emu
