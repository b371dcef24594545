// ld, st, atom, red.
#include <cstring>
#include <mutex>

#include "instructions/memory/access.h"

namespace emu {
namespace {

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
    d.address(o[st ? 0 : 1], op);
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
    d.address(o[returns], op);
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
  if (name == "prefetch" || name == "prefetchu" || name == "discard" || name == "applypriority") {
    op.cls = Class::kOther;
    op.run = nothing;
    return true;
  }
  return false;
}

}  // namespace emu
