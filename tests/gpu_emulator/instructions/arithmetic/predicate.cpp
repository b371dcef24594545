// setp, selp, and logic of predicates.
#include <cstring>
#include <type_traits>

#include "instructions/arithmetic/lanes.h"

namespace emu {
namespace {

float hf(u32 x) { return half_to_float(static_cast<u16>(x)); }
float bff(u32 x) { return bf16_to_float(static_cast<u16>(x)); }

template <typename T, typename F>
inline u32 compare(Warp& w, const Op& o, F f) {
  using Lane = std::conditional_t<sizeof(T) == 8, u64, u32>;
  alignas(64) Lane t[kLanes];
  if constexpr (sizeof(T) == 2) {
    const u32* a = w.row<u32>(o.a);
    const u32* b = w.row<u32>(o.b);
    for (int i = 0; i < kLanes; ++i) t[i] = f(static_cast<T>(a[i]), static_cast<T>(b[i])) ? ~Lane{0} : 0;
  } else {
    const T* a = w.row<T>(o.a);
    const T* b = w.row<T>(o.b);
    for (int i = 0; i < kLanes; ++i) t[i] = f(a[i], b[i]) ? ~Lane{0} : 0;
  }
  return lane_bits(t);
}

// o.d, o.imm low: predicates p and q (or 0xffffffff); o.c: the third operand; o.flags: combination
enum : u8 { kCombineNone, kCombineAnd, kCombineOr, kCombineXor, kNegateC = 4 };

inline void write_predicate(Warp& w, u32 index, u32 value, u32 m) {
  u32& p = w.predicates[index];
  p = (p & ~m) | (value & m);
}

inline void finish_setp(Warp& w, const Op& o, u32 m, u32 r) {
  u32 p = r, q = ~r;
  if (o.flags) {
    const u32 c = w.predicates[o.c] ^ (o.flags & kNegateC ? kAll : 0);
    switch (o.flags & 3) {
      case kCombineAnd:
        p &= c, q &= c;
        break;
      case kCombineOr:
        p |= c, q |= c;
        break;
      case kCombineXor:
        p ^= c, q ^= c;
        break;
    }
  }
  write_predicate(w, o.d, p, m);
  if (o.imm != ~u64{0}) write_predicate(w, static_cast<u32>(o.imm), q, m);
}

#define CMP(T, E) \
  [](Warp& w, const Op& o, u32 m) { finish_setp(w, o, m, compare<T>(w, o, [](T a, T b) { return E; })); }

template <typename T>
Handler integer_comparison(const std::string& c) {
  if (c == "eq") return CMP(T, a == b);
  if (c == "ne") return CMP(T, a != b);
  if (c == "lt" || c == "lo") return CMP(T, a < b);
  if (c == "le" || c == "ls") return CMP(T, a <= b);
  if (c == "gt" || c == "hi") return CMP(T, a > b);
  if (c == "ge" || c == "hs") return CMP(T, a >= b);
  return nullptr;
}

template <typename T>
Handler float_comparison(const std::string& c) {
  if (c == "eq") return CMP(T, a == b);
  if (c == "ne") return CMP(T, (a < b) || (a > b));
  if (c == "lt") return CMP(T, a < b);
  if (c == "le") return CMP(T, a <= b);
  if (c == "gt") return CMP(T, a > b);
  if (c == "ge") return CMP(T, a >= b);
  if (c == "equ") return CMP(T, !((a < b) || (a > b)));
  if (c == "neu") return CMP(T, a != b);
  if (c == "ltu") return CMP(T, !(a >= b));
  if (c == "leu") return CMP(T, !(a > b));
  if (c == "gtu") return CMP(T, !(a <= b));
  if (c == "geu") return CMP(T, !(a < b));
  if (c == "num") return CMP(T, a == a && b == b);
  if (c == "nan") return CMP(T, a != a || b != b);
  return nullptr;
}

template <bool Bf16, typename F>
inline void compare_half(Warp& w, const Op& o, u32 m, F f) {
  const u32* a = w.row<u32>(o.a);
  const u32* b = w.row<u32>(o.b);
  u32 r = 0;
  for (int i = 0; i < kLanes; ++i) r |= static_cast<u32>(Bf16 ? f(bff(a[i]), bff(b[i])) : f(hf(a[i]), hf(b[i]))) << i;
  finish_setp(w, o, m, r);
}
#define CMPH(B, E) [](Warp& w, const Op& o, u32 m) { compare_half<B>(w, o, m, [](float a, float b) { return E; }); }
template <bool B>
Handler half_comparison(const std::string& c) {
  if (c == "eq") return CMPH(B, a == b);
  if (c == "ne") return CMPH(B, (a < b) || (a > b));
  if (c == "lt") return CMPH(B, a < b);
  if (c == "le") return CMPH(B, a <= b);
  if (c == "gt") return CMPH(B, a > b);
  if (c == "ge") return CMPH(B, a >= b);
  if (c == "neu") return CMPH(B, a != b);
  if (c == "equ") return CMPH(B, !((a < b) || (a > b)));
  if (c == "ltu") return CMPH(B, !(a >= b));
  if (c == "leu") return CMPH(B, !(a > b));
  if (c == "gtu") return CMPH(B, !(a <= b));
  if (c == "geu") return CMPH(B, !(a < b));
  if (c == "nan") return CMPH(B, a != a || b != b);
  if (c == "num") return CMPH(B, a == a && b == b);
  return nullptr;
}

void move_predicate(Warp& w, const Op& o, u32 m) {
  const u32 value = o.flags ? (o.imm ? kAll : 0) : w.predicates[o.a] ^ (o.type ? kAll : 0);
  write_predicate(w, o.d, value, m);
}
template <int Which>
void logic_predicate(Warp& w, const Op& o, u32 m) {
  const u32 a = w.predicates[o.a] ^ (o.flags & 1 ? kAll : 0), b = w.predicates[o.b] ^ (o.flags & 2 ? kAll : 0);
  write_predicate(w, o.d, Which == 0 ? a & b : Which == 1 ? a | b : Which == 2 ? a ^ b : ~a, m);
}

template <typename T>
void select(Warp& w, const Op& o, u32 m) {
  const u32 p = w.predicates[o.c] ^ (o.flags ? kAll : 0);
  // a where p, else b: two masked copies would alias; build the result first.
  alignas(64) T t[kLanes];
  const T* a = w.row<T>(o.a);
  const T* b = w.row<T>(o.b);
  std::memcpy(t, b, sizeof t);
  put(t, a, p);
  put(w.row<T>(o.d), t, m);
}

}  // namespace

bool decode_predicate(Decoder& d, const Instruction& in, Op& op) {
  const std::string& name = in.parts[0];
  const std::string& type = in.parts.back();
  const int width = in.parts.size() > 1 ? type_bits(type) : 0;
  const auto& o = in.operands;

  if (name == "setp") {
    const std::string& comparison = in.parts[1];
    op.cls = Class::kPredicate;
    if (type == "u16") op.run = integer_comparison<u16>(comparison);
    if (type == "s16" || type == "b16") op.run = integer_comparison<i16>(comparison);
    if (type == "u32" || type == "b32") op.run = integer_comparison<u32>(comparison);
    if (type == "s32") op.run = integer_comparison<i32>(comparison);
    if (type == "u64" || type == "b64") op.run = integer_comparison<u64>(comparison);
    if (type == "s64") op.run = integer_comparison<i64>(comparison);
    if (type == "f32") op.run = float_comparison<float>(comparison);
    if (type == "f64") op.run = float_comparison<double>(comparison);
    if (type == "f16") op.run = half_comparison<false>(comparison);
    if (type == "bf16") op.run = half_comparison<true>(comparison);
    if (!op.run || in.has("ftz")) return false;
    op.imm = ~u64{0};
    if (o[0].kind == Operand::kPair) {
      op.d = d.predicate(o[0].items[0]);
      op.imm = d.predicate(o[0].items[1]);
    } else {
      op.d = d.predicate(o[0]);
    }
    op.a = d.source(o[1], width);
    op.b = d.source(o[2], width);
    op.flags = in.has("and") ? kCombineAnd : in.has("or") ? kCombineOr : in.has("xor") ? kCombineXor : kCombineNone;
    if (op.flags) {
      op.c = d.predicate(o[3]);
      if (o[3].negated) op.flags |= kNegateC;
    }
    return true;
  }
  if (name == "selp") {
    op.cls = Class::kPredicate;
    op.d = d.destination(o[0]);
    op.a = d.source(o[1], width), op.b = d.source(o[2], width), op.c = d.predicate(o[3]);
    op.flags = o[3].negated;
    op.run = width == 64 ? select<u64> : select<u32>;
    return true;
  }
  if (type == "pred" && (name == "and" || name == "or" || name == "xor" || name == "not" || name == "mov")) {
    op.cls = Class::kPredicate;
    op.d = d.predicate(o[0]);
    if (name == "mov") {
      op.run = move_predicate;
      if (o[1].kind == Operand::kImmediate) {
        op.flags = 1, op.imm = o[1].value;
      } else {
        op.a = d.predicate(o[1]), op.type = o[1].negated;
      }
      return true;
    }
    op.a = d.predicate(o[1]);
    op.flags = o[1].negated;
    if (name != "not") op.b = d.predicate(o[2]), op.flags |= static_cast<u8>(o[2].negated << 1);
    op.run = name == "and"   ? logic_predicate<0>
             : name == "or"  ? logic_predicate<1>
             : name == "xor" ? logic_predicate<2>
                             : logic_predicate<3>;
    return true;
  }
  return false;
}

}  // namespace emu
