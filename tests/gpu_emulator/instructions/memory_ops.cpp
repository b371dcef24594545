// Loads, stores, atomics, cp.async, ldmatrix and stmatrix, with the checks and the counts of memory accesses.
#include <bitset>
#include <mutex>

#include "instructions/decode.h"

namespace emu {
namespace {

enum Space : u8 { kGeneric, kGlobal, kShared, kLocal, kParameter, kConstant };
enum : u8 { kAddress64 = 1, kSigned = 2, kFill = 4 };

std::string hex(u64 v) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(v));
  return text;
}

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
inline void touch(const Warp& w, int lane, Allocation& a, u64 address, u32 bytes, bool write) {
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

template <u32 Bytes>
inline void touch_fixed(const Warp& w, int lane, Allocation& a, u64 address, bool write) {
  touch(w, lane, a, address, Bytes, write);
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
  switch (bytes) {
    case 4:
      touch_fixed<4>(w, lane, *a, address, write);
      break;
    case 8:
      touch_fixed<8>(w, lane, *a, address, write);
      break;
    case 16:
      touch_fixed<16>(w, lane, *a, address, write);
      break;
    default:
      touch(w, lane, *a, address, bytes, write);
  }
  return reinterpret_cast<u8*>(address);
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
  s.ideal_sectors += (total + 31) / 32;
}

// Wavefronts: for each group of lanes that move 128 bytes together, the most words that fall into one bank.
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

// Pointers of the active lanes to `bytes` each, checked.
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

// o.type: bytes of an element; o.vec: elements; o.d, or o.wide->rows: registers; o.imm: bits of a register
void load(Warp& w, const Op& o, u32 m) {
  u8* p[kLanes];
  const u32 element = o.type, count = o.vec;
  resolve(w, o, m, element * count, false, p);
  for (u32 v = 0; v < count; ++v) {
    const u32 row = count == 1 ? o.d : o.wide->rows[v];
    const u32 at = v * element;
    if (o.imm == 64) {
      u64* to = w.row<u64>(row);
      for (int i = 0; i < kLanes; ++i) {
        if (!(m >> i & 1u)) continue;
        u64 x = 0;
        std::memcpy(&x, p[i] + at, element);
        if (o.flags & kSigned) x = static_cast<u64>(static_cast<i64>(x << (64 - 8 * element)) >> (64 - 8 * element));
        to[i] = x;
      }
      continue;
    }
    u32* to = w.row<u32>(row);
    if (element == 4) {
      for (int i = 0; i < kLanes; ++i) {
        if (m >> i & 1u) std::memcpy(&to[i], p[i] + at, 4);
      }
    } else {
      for (int i = 0; i < kLanes; ++i) {
        if (!(m >> i & 1u)) continue;
        u32 x = p[i][at];
        if (element == 2) x |= static_cast<u32>(p[i][at + 1]) << 8;
        if (o.flags & kSigned) {
          x = static_cast<u32>(static_cast<i32>(x << (32 - 8 * element)) >> (32 - 8 * element));
          if (o.imm == 16) x &= 0xffffu;
        }
        to[i] = x;
      }
    }
  }
}

void store(Warp& w, const Op& o, u32 m) {
  u8* p[kLanes];
  const u32 element = o.type, count = o.vec;
  resolve(w, o, m, element * count, true, p);
  for (u32 v = 0; v < count; ++v) {
    const u32 row = count == 1 ? o.d : o.wide->rows[v];
    const u32 at = v * element;
    if (element == 8) {
      const u64* from = w.row<u64>(row);
      for (int i = 0; i < kLanes; ++i) {
        if (m >> i & 1u) std::memcpy(p[i] + at, &from[i], 8);
      }
    } else {
      // The low bytes; of a 64-bit register too.
      const u32* from = w.row<u32>(row);
      const int step = o.wide && !o.wide->kinds.empty() && o.wide->kinds[v] == 64 ? 2 : 1;
      for (int i = 0; i < kLanes; ++i) {
        if (m >> i & 1u) std::memcpy(p[i] + at, &from[i * step], element);
      }
    }
  }
}

// ---- atomics
std::mutex atomic_mutex;

template <typename T>
T combine(const std::string& what, T old, T b, T c) {
  if (what == "add") {
    if constexpr (std::is_integral_v<T>) {
      using U = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<U>(old) + static_cast<U>(b));
    } else {
      return canonical(old + b);
    }
  }
  if (what == "exch") return b;
  if (what == "min") return old < b ? old : b;
  if (what == "max") return old > b ? old : b;
  if (what == "cas") return old == b ? c : old;
  if constexpr (std::is_integral_v<T>) {
    if (what == "and") return old & b;
    if (what == "or") return old | b;
    if (what == "xor") return old ^ b;
    if (what == "inc") return old >= b ? 0 : old + 1;
    if (what == "dec") return old == 0 || old > b ? b : old - 1;
  }
  throw std::runtime_error("atomic operation " + what + " is not modelled");
}

// o.wide->text: operation; o.b, o.c: operands; o.imm: 1 where the old value is returned
template <typename T>
void atomic(Warp& w, const Op& o, u32 m) {
  u8* p[kLanes];
  std::lock_guard<std::mutex> lock(atomic_mutex);
  resolve(w, o, m, sizeof(T), false, p);
  w.stats->atomics += static_cast<u64>(__builtin_popcount(m));
  w.cluster->progress++;
  for (int i = 0; i < kLanes; ++i) {
    if (!(m >> i & 1u)) continue;
    T old;
    std::memcpy(&old, p[i], sizeof(T));
    const T b = w.row<T>(o.b)[i];
    const T c = w.row<T>(o.c)[i];
    const T result = combine<T>(o.wide->text, old, b, c);
    std::memcpy(p[i], &result, sizeof(T));
    if (o.imm) w.row<T>(o.d)[i] = old;
  }
}

// ---- cp.async
void apply_copies(Warp& w, std::vector<Warp::Copy>& copies) {
  for (const Warp::Copy& c : copies) {
    u8* to = shared_pointer(w, static_cast<int>(c.lane), c.shared, c.bytes, true);
    if (c.fill < c.bytes) std::memset(to, 0, c.bytes);
    if (c.fill) std::memcpy(to, reinterpret_cast<const void*>(c.global), c.fill);
  }
  copies.clear();
}

// o.a: global address; o.b: shared address (32 bits); o.imm: bytes; o.c: row of the source size where kFill
void copy_async(Warp& w, const Op& o, u32 m) {
  alignas(64) u64 t[kLanes];
  lane_addresses(w, o, t);
  const u32 bytes = static_cast<u32>(o.imm);
  const bool is64 = o.wide->a;
  u32 loaded = 0;
  u32 shared_address[kLanes] = {};
  for (int i = 0; i < kLanes; ++i) {
    if (!(m >> i & 1u)) continue;
    const u32 shared = static_cast<u32>(is64 ? w.row<u64>(o.b)[i] : w.row<u32>(o.b)[i]) + static_cast<u32>(o.wide->b);
    shared_address[i] = shared;
    u32 fill = bytes;
    if (o.flags & kFill) fill = std::min(bytes, w.row<u32>(o.c)[i]);
    if (shared % bytes) violation(w, i, "misaligned cp.async to shared memory");
    if (t[i] % bytes && fill) violation(w, i, "misaligned cp.async from " + hex(t[i]));
    if (fill) {
      Allocation* a = find_allocation(*w.launch->memory, t[i]);
      if (!a || t[i] - a->base + fill > a->bytes) violation(w, i, "cp.async loads out of bounds at " + hex(t[i]));
      touch(w, i, *a, t[i], fill, false);
      loaded |= 1u << i;
    }
    w.copy_groups.back().push_back({static_cast<u32>(i), shared, bytes, fill, t[i]});
    w.stats->cp_async_bytes += fill;
  }
  if (loaded) count_global(w, t, loaded, bytes, false);
  count_shared(w.stats->shared_store, shared_address, m, bytes);
}

void copy_commit(Warp& w, const Op&, u32) { w.copy_groups.emplace_back(); }

void copy_wait(Warp& w, const Op& o, u32) {
  // At most o.imm committed groups stay; the last one is open.
  const bool all = o.flags;
  while (!w.copy_groups.empty() && (all || w.copy_groups.size() - 1 > o.imm)) {
    apply_copies(w, w.copy_groups.front());
    w.copy_groups.erase(w.copy_groups.begin());
  }
  if (w.copy_groups.empty()) w.copy_groups.emplace_back();
}

// ---- ldmatrix, stmatrix
void load_matrix(Warp& w, const Op& o, u32 m) {
  if (m != kAll) violation(w, 0, "ldmatrix needs all lanes of the warp");
  alignas(64) u64 t[kLanes];
  lane_addresses(w, o, t);
  const u32 count = o.vec;
  u8* p[kLanes];
  u32 s[kLanes];
  for (u32 i = 0; i < 8 * count; ++i) {
    s[i] = static_cast<u32>(t[i]);
    p[i] = shared_pointer(w, static_cast<int>(i), s[i], 16, false, true, true);
  }
  count_shared(w.stats->ldmatrix, s, count == 4 ? kAll : (1u << 8 * count) - 1, 16);
  for (u32 k = 0; k < count; ++k) {
    alignas(64) u32 r[kLanes];
    for (u32 l = 0; l < kLanes; ++l) {
      u16 two[2];
      if (o.flags & kFill) {  // .trans
        std::memcpy(&two[0], p[8 * k + 2 * (l % 4)] + 2 * (l / 4), 2);
        std::memcpy(&two[1], p[8 * k + 2 * (l % 4) + 1] + 2 * (l / 4), 2);
      } else {
        std::memcpy(two, p[8 * k + l / 4] + 4 * (l % 4), 4);
      }
      r[l] = static_cast<u32>(two[1]) << 16 | two[0];
    }
    put(w.row<u32>(o.wide->rows[k]), r, kAll);
  }
}

void store_matrix(Warp& w, const Op& o, u32 m) {
  if (m != kAll) violation(w, 0, "stmatrix needs all lanes of the warp");
  alignas(64) u64 t[kLanes];
  lane_addresses(w, o, t);
  const u32 count = o.vec;
  u8* p[kLanes];
  u32 s[kLanes];
  for (u32 i = 0; i < 8 * count; ++i) {
    s[i] = static_cast<u32>(t[i]);
    p[i] = shared_pointer(w, static_cast<int>(i), s[i], 16, true);
  }
  count_shared(w.stats->stmatrix, s, count == 4 ? kAll : (1u << 8 * count) - 1, 16);
  for (u32 k = 0; k < count; ++k) {
    const u32* r = w.row<u32>(o.wide->rows[k]);
    for (u32 l = 0; l < kLanes; ++l) {
      const u16 two[2] = {static_cast<u16>(r[l]), static_cast<u16>(r[l] >> 16)};
      if (o.flags & kFill) {
        std::memcpy(p[8 * k + 2 * (l % 4)] + 2 * (l / 4), &two[0], 2);
        std::memcpy(p[8 * k + 2 * (l % 4) + 1] + 2 * (l / 4), &two[1], 2);
      } else {
        std::memcpy(p[8 * k + l / 4] + 4 * (l % 4), two, 4);
      }
    }
  }
}

void nothing(Warp&, const Op&, u32) {}

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

Class class_of(Space s, bool store) {
  switch (s) {
    case kShared:
      return store ? Class::kSharedStore : Class::kSharedLoad;
    case kLocal:
      return Class::kLocal;
    case kParameter:
    case kConstant:
      return Class::kParam;
    default:
      return store ? Class::kGlobalStore : Class::kGlobalLoad;
  }
}

}  // namespace

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

bool decode_memory(Decoder& d, const Instruction& in, Op& op) {
  const std::string& name = in.parts[0];
  const std::string& type = in.parts.back();
  const auto& o = in.operands;
  if (name == "ld" || name == "ldu" || name == "st") {
    const bool st = name == "st";
    const Space space = space_of(in);
    op.space = space;
    op.cls = class_of(space, st);
    op.vec = in.has("v2") ? 2 : in.has("v4") ? 4 : in.has("v8") ? 8 : 1;
    const int width = type_bits(type);
    if (width < 8 || width > 64) return false;
    op.type = static_cast<u8>(width / 8);
    d.address(o[st ? 0 : 1], op, 64);
    if (!st && type[0] == 's') op.flags |= kSigned;
    const Operand& data = o[st ? 1 : 0];
    const auto& first = op.vec > 1 ? data.items[0] : data;
    op.imm = first.kind == Operand::kImmediate ? width : static_cast<u64>(d.bits_of(first));
    if (op.vec > 1 || st) op.wide = std::make_unique<WideOperand>();
    auto one = [&](const Operand& x) { return st ? d.source(x, width) : d.destination(x); };
    if (op.vec > 1) {
      for (const Operand& x : data.items) op.wide->rows.push_back(one(x));
    } else {
      op.d = one(data);
    }
    if (st && width < 64) {
      for (u32 i = 0; i < op.vec; ++i) {
        const Operand& x = op.vec > 1 ? data.items[i] : data;
        op.wide->kinds.push_back(x.kind == Operand::kRegister ? d.bits_of(x) : width);
      }
    }
    if (st && width == 64 && first.kind == Operand::kRegister && d.bits_of(first) != 64) return false;
    op.run = st ? store : load;
    return true;
  }
  if (name == "atom" || name == "red") {
    const bool returns = name == "atom";
    op.space = space_of(in);
    op.cls = Class::kAtomic;
    op.wide = std::make_unique<WideOperand>();
    for (const char* what : {"add", "exch", "min", "max", "cas", "and", "or", "xor", "inc", "dec"}) {
      if (in.has(what)) op.wide->text = what;
    }
    if (op.wide->text.empty()) return false;
    const int width = type_bits(type);
    if (returns) op.d = d.destination(o[0]);
    op.imm = returns;
    d.address(o[returns], op, 64);
    op.b = d.source(o[returns + 1], width);
    op.c = o.size() > static_cast<size_t>(returns) + 2 ? d.source(o[returns + 2], width) : op.b;
    if (type == "u32" || type == "b32") op.run = atomic<u32>;
    if (type == "s32") op.run = atomic<i32>;
    if (type == "u64" || type == "b64") op.run = atomic<u64>;
    if (type == "s64") op.run = atomic<i64>;
    if (type == "f32") op.run = atomic<float>;
    if (type == "f64") op.run = atomic<double>;
    return op.run != nullptr;
  }
  if (name == "cp" && in.parts.size() > 1 && in.parts[1] == "async" && !in.has("bulk")) {
    op.cls = Class::kAsyncCopy;
    if (in.parts[2] == "commit_group") {
      op.run = copy_commit;
      return true;
    }
    if (in.parts[2] == "wait_group" || in.parts[2] == "wait_all") {
      op.flags = in.parts[2] == "wait_all";
      op.imm = op.flags ? 0 : o[0].value;
      op.run = copy_wait;
      return true;
    }
    if (in.parts[2] != "cg" && in.parts[2] != "ca") return false;
    Op shared;
    d.address(o[0], shared, 32);
    d.address(o[1], op, 64);
    op.wide = std::make_unique<WideOperand>();
    op.b = shared.a;
    op.wide->a = shared.flags & kAddress64;
    op.wide->b = static_cast<u64>(shared.offset);
    op.imm = o[2].value;
    if (o.size() > 3) {
      if (in.has("L2::cache_hint") && o.size() == 4) {
      } else {
        if (o[3].kind == Operand::kRegister && d.bits_of(o[3]) == 1) return false;
        op.flags |= kFill;
        op.c = d.source(o[3], 32);
      }
    }
    op.run = copy_async;
    return true;
  }
  if (name == "ldmatrix" || name == "stmatrix") {
    if (type != "b16" || !in.has("m8n8")) return false;
    const bool st = name == "stmatrix";
    op.cls = st ? Class::kSharedStore : Class::kSharedLoad;
    op.flow = Flow::kConverge;
    op.vec = in.has("x4") ? 4 : in.has("x2") ? 2 : 1;
    d.address(o[st ? 0 : 1], op, 32);
    if (in.has("trans")) op.flags |= kFill;
    op.wide = std::make_unique<WideOperand>();
    const Operand& data = o[st ? 1 : 0];
    if (data.kind == Operand::kVector) {
      for (const Operand& x : data.items) op.wide->rows.push_back(st ? d.source(x, 32) : d.destination(x));
    } else {
      op.wide->rows.push_back(st ? d.source(data, 32) : d.destination(data));
    }
    op.wide->c = 0;  // member mask: the warp
    op.run = st ? store_matrix : load_matrix;
    return true;
  }
  if (name == "prefetch" || name == "prefetchu" || name == "discard" || name == "applypriority" ||
      name == "createpolicy") {
    if (name == "createpolicy") return false;
    op.cls = Class::kOther;
    op.run = nothing;
    return true;
  }
  return false;
}

}  // namespace emu
