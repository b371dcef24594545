// Checks and counts of accesses to memory.
#include "instructions/memory/access.h"

#include <algorithm>

#include "machine/options.h"

namespace emu {
namespace {

struct Recent {
  u64 generation = 0;
  const Memory* memory = nullptr;
  Allocation* at[4] = {};
  int next = 0;
};
thread_local Recent recent;

}  // namespace

Allocation* find_allocation(Memory& memory, u64 address) {
  if (recent.generation != memory.generation() || recent.memory != &memory) {
    recent = {};
    recent.generation = memory.generation();
    recent.memory = &memory;
  }
  for (Allocation* a : recent.at) {
    if (a && address - a->base < a->bytes) return a;
  }
  Allocation* found = memory.use(address);
  if (found) recent.at[recent.next++ % 4] = found;
  return found;
}

namespace {

// Checks one lane's access to global memory and marks its shadow.
inline void touch_bytes(const Warp& w, int lane, Allocation& a, u64 address, u32 bytes, bool write) {
  u8* shadow = a.shadow + (address - a.base);
  if (write) {
    for (u32 i = 0; i < bytes; ++i) shadow[i] |= kWritten | kStored;
    return;
  }
  u8 all = kWritten;
  for (u32 i = 0; i < bytes; ++i) {
    all &= shadow[i];
    shadow[i] |= kLoaded;
  }
  if (!all && Options::get().check_uninitialised) {
    violation(w, lane,
              "reads uninitialised global memory at " + hex(address) + " (byte " + std::to_string(address - a.base) +
                  " of " + std::to_string(a.bytes) + ", " + a.kind + ")");
  }
}

u8* global_lane(const Warp& w, int lane, u64 address, u32 bytes, bool write) {
  if (address % bytes != 0 && (bytes & (bytes - 1)) == 0)
    violation(w, lane, "misaligned global access of " + std::to_string(bytes) + " bytes at " + hex(address));
  Allocation* a = find_allocation(*w.launch->memory, address);
  if (!a || address - a->base + bytes > a->bytes) {
    violation(w, lane,
              std::string(write ? "stores" : "loads") + " " + std::to_string(bytes) + " bytes out of bounds at " +
                  hex(address) +
                  (a ? " (byte " + std::to_string(address - a->base) + " of an allocation of " +
                           std::to_string(a->bytes) + ")"
                     : " (in no allocation)"));
  }
  if (write && a->read_only) violation(w, lane, "stores to read-only memory at " + hex(address));
  switch (bytes) {  // constants, so that the loops over bytes are unrolled
    case 4:
      touch_bytes(w, lane, *a, address, 4, write);
      break;
    case 8:
      touch_bytes(w, lane, *a, address, 8, write);
      break;
    case 16:
      touch_bytes(w, lane, *a, address, 16, write);
      break;
    default:
      touch_bytes(w, lane, *a, address, bytes, write);
  }
  return reinterpret_cast<u8*>(address);
}

}  // namespace

void touch(const Warp& w, int lane, Allocation& a, u64 address, u32 bytes, bool write) {
  touch_bytes(w, lane, a, address, bytes, write);
}

void count_global(Warp& w, const u64* address, u32 m, u32 bytes, bool write) {
  MemoryStats& s = write ? w.stats->global_store : w.stats->global_load;
  u64 sector[2 * kLanes];
  int n = 0;
  u64 last = ~u64{0};
  bool sorted = true;
  u64 total = 0;
  for (int i = 0; i < kLanes; ++i) {
    if (!(m >> i & 1u)) continue;
    total += bytes;
    for (u64 k = address[i] >> 5; k <= (address[i] + bytes - 1) >> 5; ++k) {
      if (k == last) continue;
      if (last != ~u64{0} && k < last) sorted = false;
      if (n < 2 * kLanes) sector[n++] = k;
      last = k;
    }
  }
  if (!sorted) {
    std::sort(sector, sector + n);
    n = static_cast<int>(std::unique(sector, sector + n) - sector);
  }
  s.requests += 1;
  s.sectors += n;
  s.bytes += total;
}

void count_shared(SharedStats& s, const u32* address, u32 m, u32 bytes) {
  const int lanes = bytes >= 16 ? 8 : bytes == 8 ? 16 : 32;
  const u32 words = std::max(1u, bytes / 4);
  s.requests += 1;
  for (int group = 0; group < kLanes; group += lanes) {
    u32 seen[32][8];
    u8 count[32] = {};
    int most = 0, total = 0;
    for (int i = group; i < group + lanes; ++i) {
      if (!(m >> i & 1u)) continue;
      for (u32 k = 0; k < words; ++k) {
        const u32 word = address[i] / 4 + k, bank = word % 32;
        bool known = false;
        for (int j = 0; j < count[bank] && j < 8; ++j) known |= seen[bank][j] == word;
        if (known) continue;
        if (count[bank] < 8) seen[bank][count[bank]] = word;
        ++total;
        most = std::max<int>(most, ++count[bank]);
      }
    }
    s.wavefronts += most;
    s.ideal += (total + 31) / 32;
  }
}

void resolve(Warp& w, const Op& o, u32 m, u32 bytes, bool write, u8** p) {
  alignas(64) u64 t[kLanes];
  lane_addresses(w, o, t);
  u8 space = o.space;
  if (space == kGeneric) {
    const u32 first = static_cast<u32>(__builtin_ctz(m));
    const u64 window = t[first] >> 52;
    for (int i = 0; i < kLanes; ++i) {
      if ((m >> i & 1u) && t[i] >> 52 != window)
        violation(w, i, "generic access to several state spaces at once is not modelled");
    }
    space = window == 0 ? kGlobal : window == 1 ? kShared : kLocal;
    for (u64& x : t) x &= (u64{1} << 52) - 1;
  }
  switch (space) {
    case kGlobal: {
      for (int i = 0; i < kLanes; ++i) {
        if (m >> i & 1u) p[i] = global_lane(w, i, t[i], bytes, write);
      }
      count_global(w, t, m, bytes, write);
      break;
    }
    case kConstant:
    case kParameter:
      for (int i = 0; i < kLanes; ++i) {
        if (m >> i & 1u) p[i] = global_lane(w, i, t[i], bytes, write);
      }
      break;
    case kShared: {
      alignas(64) u32 s[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        s[i] = static_cast<u32>(t[i]);
        if (m >> i & 1u) p[i] = shared_pointer(w, i, s[i], bytes, write);
      }
      count_shared(write ? w.stats->shared_store : w.stats->shared_load, s, m, bytes);
      break;
    }
    case kLocal: {
      const u32 size = w.kernel->local_bytes;
      for (int i = 0; i < kLanes; ++i) {
        if (!(m >> i & 1u)) continue;
        if (t[i] + bytes > size) violation(w, i, "local access out of bounds at " + hex(t[i]));
        if (t[i] % bytes) violation(w, i, "misaligned local access at " + hex(t[i]));
        p[i] = w.local.data() + static_cast<u64>(i) * size + t[i];
      }
      w.stats->local_requests += 1;
      w.stats->local_bytes += static_cast<u64>(__builtin_popcount(m)) * bytes;
      break;
    }
  }
}

Space space_of(const Instruction& in) {
  for (const std::string& p : in.parts) {
    if (p == "global") return kGlobal;
    if (p == "shared" || p.rfind("shared::", 0) == 0) return kShared;
    if (p == "local") return kLocal;
    if (p == "param" || p.rfind("param::", 0) == 0) return kParameter;
    if (p == "const") return kConstant;
  }
  return kGeneric;
}

}  // namespace emu
