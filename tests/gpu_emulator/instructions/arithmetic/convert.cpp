// cvt: between integers, fp64, fp32, fp16, bf16 and the packed 8-bit formats.
#include <cmath>

#include "instructions/decode.h"

namespace emu {
namespace {

enum Format : u8 { kS8, kU8, kS16, kU16, kS32, kU32, kS64, kU64, kF16, kBf16, kF32, kF64, kNoFormat };

Format format_of(const std::string& t) {
  static const char* const names[] = {"s8",  "u8",  "s16", "u16",  "s32", "u32",
                                      "s64", "u64", "f16", "bf16", "f32", "f64"};
  for (int i = 0; i < kNoFormat; ++i) {
    if (t == names[i]) return static_cast<Format>(i);
  }
  return kNoFormat;
}
int bits_of(Format f) {
  static const int bits[] = {8, 8, 16, 16, 32, 32, 64, 64, 16, 16, 32, 64};
  return bits[f];
}
bool is_integer(Format f) { return f <= kU64; }
bool is_signed(Format f) { return f == kS8 || f == kS16 || f == kS32 || f == kS64; }

// What `op` needs: type = from, vec = to, flags = rounding, saturation
enum : u8 { kSaturate = 8, kRelu = 16, kFlush = 32, kDestination64 = 64, kSaturateFinite = 128 };

u64 read(Warp& w, u32 row, Format f, int lane) {
  return bits_of(f) == 64 ? w.row<u64>(row)[lane] : w.row<u32>(row)[lane];
}

// Sign or zero extended to 64 bits.
i64 integer_of(u64 raw, Format f) {
  switch (f) {
    case kS8:
      return static_cast<i8>(raw);
    case kU8:
      return static_cast<u8>(raw);
    case kS16:
      return static_cast<i16>(raw);
    case kU16:
      return static_cast<u16>(raw);
    case kS32:
      return static_cast<i32>(raw);
    case kU32:
      return static_cast<u32>(raw);
    default:
      return static_cast<i64>(raw);
  }
}

double float_of(u64 raw, Format f) {
  switch (f) {
    case kF16:
      return half_to_float(static_cast<u16>(raw));
    case kBf16:
      return bf16_to_float(static_cast<u16>(raw));
    case kF32:
      return bits<float>(static_cast<u32>(raw));
    default:
      return bits<double>(raw);
  }
}

float double_to_float(double value, Round round) {
  const float nearest = static_cast<float>(value);
  if (round == Round::kNearest || value != value || static_cast<double>(nearest) == value) return nearest;
  const float inf = std::numeric_limits<float>::infinity();
  const bool above = static_cast<double>(nearest) > value;
  switch (round) {
    case Round::kDown:
      return above ? std::nextafterf(nearest, -inf) : nearest;
    case Round::kUp:
      return above ? nearest : std::nextafterf(nearest, inf);
    case Round::kZero:
      return value > 0 ? (above ? std::nextafterf(nearest, -inf) : nearest)
                       : (above ? nearest : std::nextafterf(nearest, inf));
    default:
      return nearest;
  }
}

u64 float_to_integer(double value, Format to, Round round) {
  const int n = bits_of(to);
  if (value != value) return n == 64 ? u64{1} << 63 : 0;
  switch (round) {
    case Round::kNearest:
      value = std::nearbyint(value);
      break;
    case Round::kZero:
      value = std::trunc(value);
      break;
    case Round::kDown:
      value = std::floor(value);
      break;
    case Round::kUp:
      value = std::ceil(value);
      break;
    default:
      break;
  }
  if (is_signed(to)) {
    const double low = -std::ldexp(1.0, n - 1), high = std::ldexp(1.0, n - 1);
    if (value < low) value = low;
    const i64 r = value >= high ? static_cast<i64>((u64{1} << (n - 1)) - 1) : static_cast<i64>(value);
    return static_cast<u64>(r);
  }
  if (value < 0) return 0;
  if (value >= std::ldexp(1.0, n)) return n == 64 ? ~u64{0} : (u64{1} << n) - 1;
  return static_cast<u64>(value);
}

u64 convert(u64 raw, Format from, Format to, Round round, u8 flags) {
  if (is_integer(from) && is_integer(to)) {
    i64 v = integer_of(raw, from);
    if (flags & kSaturate) {
      const int n = bits_of(to);
      if (is_signed(to)) {
        const i64 high = n == 64 ? INT64_MAX : (i64{1} << (n - 1)) - 1, low = -high - 1;
        if (!is_signed(from) && static_cast<u64>(v) > static_cast<u64>(high)) v = high;
        if (v > high) v = high;
        if (v < low) v = low;
      } else {
        if (is_signed(from) && v < 0) v = 0;
        const u64 high = n == 64 ? ~u64{0} : (u64{1} << n) - 1;
        if (static_cast<u64>(v) > high) v = static_cast<i64>(high);
      }
    }
    return static_cast<u64>(integer_of(static_cast<u64>(v), to));
  }
  if (is_integer(to)) {
    double value = float_of(raw, from);
    if (flags & kFlush && from == kF32 && std::fabs(value) < 0x1p-126) value = 0;
    return float_to_integer(value, to, round);
  }
  if (is_integer(from)) {
    const i64 v = integer_of(raw, from);
    const bool negative_as_unsigned = from == kU64 && v < 0;
    switch (to) {
      case kF64:
        return bits<u64>(negative_as_unsigned ? static_cast<double>(static_cast<u64>(v)) : static_cast<double>(v));
      case kF32:
        if (round != Round::kNearest && bits_of(from) <= 32)
          return bits<u32>(double_to_float(static_cast<double>(v), round));
        return bits<u32>(negative_as_unsigned ? static_cast<float>(static_cast<u64>(v)) : static_cast<float>(v));
      case kF16:
        return float_to_half(static_cast<double>(v), round);
      default:
        return double_to_bf16(static_cast<double>(v));
    }
  }
  double value = float_of(raw, from);
  if (flags & kFlush && from == kF32 && std::fabs(value) < 0x1p-126) value = std::copysign(0.0, value);
  if (flags & kSaturate) value = value != value || value < 0 ? 0.0 : value > 1 ? 1.0 : value;
  if (flags & kRelu && value < 0) value = 0.0;
  if (from == to) {  // cvt.rni.f32.f32 and its kind
    switch (round) {
      case Round::kNearest:
        value = std::nearbyint(value);
        break;
      case Round::kZero:
        value = std::trunc(value);
        break;
      case Round::kDown:
        value = std::floor(value);
        break;
      case Round::kUp:
        value = std::ceil(value);
        break;
      default:
        break;
    }
  }
  switch (to) {
    case kF64:
      return bits<u64>(canonical(value));
    case kF32:
      return bits<u32>(canonical(double_to_float(value, round)));
    case kF16:
      return float_to_half(value, round, flags & kSaturateFinite);
    default:
      return from == kF64 ? double_to_bf16(value) : float_to_bf16(static_cast<float>(value), round);
  }
}

void convert_any(Warp& w, const Op& o, u32 m) {
  const auto from = static_cast<Format>(o.type), to = static_cast<Format>(o.vec);
  const auto round = static_cast<Round>(o.flags & 7);
  for (int i = 0; i < kLanes; ++i) {
    if (!(m >> i & 1u)) continue;
    const u64 r = convert(read(w, o.a, from, i), from, to, round, o.flags);
    if (o.imm == 64) {
      w.row<u64>(o.d)[i] = r;
    } else {
      w.row<u32>(o.d)[i] = o.imm == 16 ? static_cast<u16>(r) : static_cast<u32>(r);
    }
  }
}

template <typename D, typename A, typename F>
inline void lanes(Warp& w, const Op& o, u32 m, F f) {
  const A* a = w.row<A>(o.a);
  alignas(64) D t[kLanes];
  for (int i = 0; i < kLanes; ++i) t[i] = f(a[i]);
  put(w.row<D>(o.d), t, m);
}
#define CVT(D, A, E) [](Warp& w, const Op& o, u32 m) { lanes<D, A>(w, o, m, [](A a) -> D { return E; }); }

// Two values into one register: the first operand is the upper half.
template <u16 (*Narrow)(float), bool Relu>
void pack_two(Warp& w, const Op& o, u32 m) {
  const float* a = w.row<float>(o.a);
  const float* b = w.row<float>(o.b);
  alignas(64) u32 t[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    const float x = Relu && a[i] < 0 ? 0.0f : a[i], y = Relu && b[i] < 0 ? 0.0f : b[i];
    t[i] = static_cast<u32>(Narrow(x)) << 16 | Narrow(y);
  }
  put(w.row<u32>(o.d), t, m);
}
u16 bf16_rz(float x) { return float_to_bf16(x, Round::kZero); }
u16 half_rz(float x) { return float_to_half(x, Round::kZero); }

template <bool E4m3>
void pack_8bit(Warp& w, const Op& o, u32 m) {
  for (int i = 0; i < kLanes; ++i) {
    if (!(m >> i & 1u)) continue;
    float x, y;
    if (o.flags) {  // from f16x2
      const u32 v = w.row<u32>(o.a)[i];
      x = half_to_float(static_cast<u16>(v >> 16)), y = half_to_float(static_cast<u16>(v));
    } else {
      x = w.row<float>(o.a)[i], y = w.row<float>(o.b)[i];
    }
    w.row<u32>(o.d)[i] = static_cast<u32>(E4m3 ? float_to_e4m3(x) : float_to_e5m2(x)) << 8 |
                         (E4m3 ? float_to_e4m3(y) : float_to_e5m2(y));
  }
}
template <bool E4m3>
void unpack_8bit(Warp& w, const Op& o, u32 m) {
  for (int i = 0; i < kLanes; ++i) {
    if (!(m >> i & 1u)) continue;
    const u32 v = w.row<u32>(o.a)[i];
    const float x = E4m3 ? e4m3_to_float(static_cast<u8>(v >> 8)) : e5m2_to_float(static_cast<u8>(v >> 8));
    const float y = E4m3 ? e4m3_to_float(static_cast<u8>(v)) : e5m2_to_float(static_cast<u8>(v));
    w.row<u32>(o.d)[i] = static_cast<u32>(float_to_half_rn(x)) << 16 | float_to_half_rn(y);
  }
}

}  // namespace

bool decode_convert(Decoder& d, const Instruction& in, Op& op) {
  if (in.parts[0] != "cvt" || in.parts.size() < 3) return false;
  const std::string& to_name = in.parts[in.parts.size() - 2];
  const std::string& from_name = in.parts.back();
  op.cls = Class::kConvert;
  op.d = d.destination(in.operands[0]);
  if (to_name == "f16x2" || to_name == "bf16x2") {
    if (from_name == "e4m3x2" || from_name == "e5m2x2") {
      if (to_name != "f16x2") return false;
      op.a = d.source(in.operands[1], 16);
      op.run = from_name == "e4m3x2" ? unpack_8bit<true> : unpack_8bit<false>;
      return true;
    }
    if (from_name != "f32" || in.operands.size() != 3 || in.has("satfinite") || in.has("ftz")) return false;
    op.a = d.source(in.operands[1], 32), op.b = d.source(in.operands[2], 32);
    const bool relu = in.has("relu"), zero = in.has("rz");
    if (to_name == "f16x2") {
      op.run = zero   ? (relu ? pack_two<half_rz, true> : pack_two<half_rz, false>)
               : relu ? pack_two<float_to_half_rn, true>
                      : pack_two<float_to_half_rn, false>;
    } else {
      op.run = zero   ? (relu ? pack_two<bf16_rz, true> : pack_two<bf16_rz, false>)
               : relu ? pack_two<float_to_bf16_rn, true>
                      : pack_two<float_to_bf16_rn, false>;
    }
    return true;
  }
  if (to_name == "e4m3x2" || to_name == "e5m2x2") {
    if (in.has("relu")) return false;
    op.flags = from_name == "f16x2";
    op.a = d.source(in.operands[1], 32);
    if (!op.flags) op.b = d.source(in.operands[2], 32);
    op.run = to_name == "e4m3x2" ? pack_8bit<true> : pack_8bit<false>;
    return true;
  }
  const Format to = format_of(to_name), from = format_of(from_name);
  if (to == kNoFormat || from == kNoFormat) return false;
  Round round = is_integer(to) && !is_integer(from) ? Round::kZero : Round::kNearest;
  bool rounding = false;
  for (size_t i = 1; i + 2 < in.parts.size(); ++i) {
    const std::string& p = in.parts[i];
    if (p == "rn" || p == "rni")
      round = Round::kNearest, rounding = true;
    else if (p == "rz" || p == "rzi")
      round = Round::kZero, rounding = true;
    else if (p == "rm" || p == "rmi")
      round = Round::kDown, rounding = true;
    else if (p == "rp" || p == "rpi")
      round = Round::kUp, rounding = true;
    else if (p == "rna")
      round = Round::kNearestAway, rounding = true;
    else if (p == "sat")
      op.flags |= kSaturate;
    else if (p == "satfinite")
      op.flags |= kSaturateFinite;
    else if (p == "relu")
      op.flags |= kRelu;
    else if (p == "ftz")
      op.flags |= kFlush;
    else
      return false;
  }
  op.a = d.source(in.operands[1], bits_of(from));
  op.type = from, op.vec = to;
  // An integer result is extended to the width of its register.
  const int width = d.bits_of(in.operands[0]);
  op.imm = static_cast<u64>(width);
  if (from == to && !rounding && !is_integer(to)) return false;
  const bool plain = !(op.flags & (kSaturate | kSaturateFinite | kRelu | kFlush));
  op.flags |= static_cast<u8>(round);
  op.run = convert_any;
  if (!plain) return true;
  // Fast ways for the frequent ones.
  const bool nearest = round == Round::kNearest;
  if (is_integer(from) && is_integer(to) && width <= 32 && bits_of(from) <= 32 && width == bits_of(to)) {
    if (to == kU16 || to == kS16) {
      if (from == kU32 || from == kS32 || from == kU16 || from == kS16) op.run = CVT(u32, u32, a & 0xffffu);
      if (from == kU8) op.run = CVT(u32, u32, a & 0xffu);
      if (from == kS8) op.run = CVT(u32, u32, static_cast<u16>(static_cast<i8>(a)));
    } else if (to == kU32 || to == kS32) {
      if (from == kU16) op.run = CVT(u32, u32, a & 0xffffu);
      if (from == kS16) op.run = CVT(u32, u32, static_cast<u32>(static_cast<i16>(a)));
      if (from == kU8) op.run = CVT(u32, u32, a & 0xffu);
      if (from == kS8) op.run = CVT(u32, u32, static_cast<u32>(static_cast<i8>(a)));
      if (from == kU32 || from == kS32) op.run = CVT(u32, u32, a);
    }
  }
  if (is_integer(from) && is_integer(to) && bits_of(to) <= 32 && width == bits_of(to) && bits_of(from) == 64) {
    if (width == 32) op.run = CVT(u32, u64, static_cast<u32>(a));
    if (width == 16) op.run = CVT(u32, u64, static_cast<u32>(a & 0xffffu));
  }
  if (is_integer(from) && bits_of(to) == 64 && is_integer(to) && width == 64) {
    if (from == kU32) op.run = CVT(u64, u32, a);
    if (from == kS32) op.run = CVT(i64, i32, a);
    if (from == kU16) op.run = CVT(u64, u32, a & 0xffffu);
    if (from == kS16) op.run = CVT(i64, u32, static_cast<i16>(a));
  }
  if (to == kF32 && from == kS32 && nearest) op.run = CVT(float, i32, static_cast<float>(a));
  if (to == kF32 && from == kU32 && nearest) op.run = CVT(float, u32, static_cast<float>(a));
  if (to == kF64 && from == kF32) op.run = CVT(double, float, canonical(static_cast<double>(a)));
  if (to == kF32 && from == kF64 && nearest) op.run = CVT(float, double, canonical(static_cast<float>(a)));
  if (to == kF32 && from == kF16) op.run = CVT(float, u32, half_to_float(static_cast<u16>(a)));
  if (to == kF32 && from == kBf16) op.run = CVT(float, u32, canonical(bf16_to_float(static_cast<u16>(a))));
  if (to == kF16 && from == kF32 && nearest && width == 16) op.run = CVT(u32, float, float_to_half_rn(a));
  if (to == kBf16 && from == kF32 && nearest && width == 16) op.run = CVT(u32, float, float_to_bf16_rn(a));
  if (to == kS32 && from == kF32 && nearest && width == 32) {
    op.run = CVT(i32, float,
                 a != a          ? 0
                 : a >= 0x1p31f  ? INT32_MAX
                 : a <= -0x1p31f ? INT32_MIN
                                 : static_cast<i32>(__builtin_rintf(a)));
  }
  return true;
}

}  // namespace emu
