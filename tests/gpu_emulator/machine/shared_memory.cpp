// Accesses to shared memory: bounds, alignment, initialisation, fences, races.
#include "machine/shared_memory.h"

#include <cstring>

#include "machine/options.h"

namespace emu {

Cta& shared_owner(Warp& w, int lane, u32 address) {
  const u32 peer = address >> 24;
  if (peer == 0) return *w.cta;
  if (peer > w.cluster->ctas.size())
    violation(w, lane, "shared::cluster address " + hex(address) + " names no block of the cluster");
  return w.cluster->ctas[peer - 1];
}

u8* shared_pointer(Warp& w, int lane, u32 address, u32 bytes, bool write, bool data, bool tolerant) {
  Cta& cta = shared_owner(w, lane, address);
  const u32 offset = shared_offset(address);
  if (offset + bytes > cta.shared.size()) {
    violation(w, lane,
              std::string(write ? "stores" : "loads") + " " + std::to_string(bytes) +
                  " bytes out of bounds of shared memory at " + hex(offset) + " of " +
                  std::to_string(cta.shared.size()));
  }
  if (offset % bytes && bytes <= 16)
    violation(w, lane, "misaligned access of " + std::to_string(bytes) + " bytes to shared memory at " + hex(offset));
  u8* shadow = cta.shared_shadow.data() + offset;
  if (write) {
    std::memset(shadow, data ? 2 + w.id : 1, bytes);
    if (data) ++cta.shared_epoch;
  } else if (Options::get().check_uninitialised) {
    for (u32 i = 0; i < bytes; ++i) {
      if (shadow[i]) continue;
      if (!tolerant) violation(w, lane, "reads uninitialised shared memory at " + hex(offset + i));
      w.stats->uninitialised_ldmatrix += 1;
      break;
    }
  }
  if (!cta.race_writer.empty() && data) {
    // Two threads of different warps, one of them writing, with no barrier between.
    const u32 me = cta.interval << 11 | (w.thread(lane) + 1);
    auto clash = [&](u32 other) {
      return other >> 11 == cta.interval && ((other & 0x7ffu) - 1) / 32 != static_cast<u32>(w.id);
    };
    for (u32 word = offset / 4; word <= (offset + bytes - 1) / 4; ++word) {
      if (clash(cta.race_writer[word])) {
        violation(w, lane,
                  "races on shared memory at " + hex(word * 4) + " with a store of thread " +
                      std::to_string((cta.race_writer[word] & 0x7ffu) - 1));
      }
      if (write && clash(cta.race_reader[word])) {
        violation(w, lane,
                  "stores to shared memory at " + hex(word * 4) + ", which thread " +
                      std::to_string((cta.race_reader[word] & 0x7ffu) - 1) + " read since the last barrier");
      }
      (write ? cta.race_writer : cta.race_reader)[word] = me;
    }
  }
  return cta.shared.data() + offset;
}

const u8* async_read(Warp& w, Cta& cta, u32 offset, u32 bytes, const char* what) {
  if (offset + bytes > cta.shared.size()) {
    violation(w, 0,
              std::string(what) + " reads shared memory out of bounds at " + hex(offset) + " of " +
                  std::to_string(cta.shared.size()));
  }
  const u8* shadow = cta.shared_shadow.data() + offset;
  for (u32 i = 0; i < bytes; ++i) {
    if (shadow[i] == 1) continue;
    if (shadow[i] == 0) {
      if (Options::get().check_uninitialised)
        violation(w, 0, std::string(what) + " reads uninitialised shared memory at " + hex(offset + i));
    } else {
      violation(w, 0,
                std::string(what) + " reads shared memory at " + hex(offset + i) + ", which warp " +
                    std::to_string(shadow[i] - 2) + " wrote without a fence.proxy.async since");
    }
  }
  return cta.shared.data() + offset;
}

}  // namespace emu
