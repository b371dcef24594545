// lop3, bit fields, dot products of bytes.
#include <algorithm>

#include "instructions/arithmetic/lanes.h"

namespace emu {
namespace {

template <typename U, typename S>
U extract_field(U a, u32 b, u32 c, bool is_signed) {
  const int width = sizeof(U) * 8;
  const int pos = b & 0xff, len = c & 0xff;
  if (len == 0) return 0;
  const int top = std::min(pos + len - 1, width - 1);
  const U sign = is_signed ? (a >> top) & 1 : 0;
  U r = pos < width ? a >> pos : 0;
  const int have = std::max(0, std::min(len, width - pos));
  if (have < width) r &= (U{1} << have) - 1;
  if (sign && have < width) r |= ~U{0} << have;
  if (sign && have == 0) r = ~U{0};
  return r;
}

template <typename U>
U insert_field(U a, U b, u32 c, u32 d) {
  const int width = sizeof(U) * 8;
  const int pos = c & 0xff, len = std::min<int>(d & 0xff, width);
  if (pos >= width || len == 0) return b;
  const U mask = (len >= width ? ~U{0} : (U{1} << len) - 1) << pos;
  return (b & ~mask) | ((a << pos) & mask);
}

void lop3(Warp& w, const Op& o, u32 m) {
  const u32 lut = static_cast<u32>(o.imm);
  const u32* a = w.row<u32>(o.a);
  const u32* b = w.row<u32>(o.b);
  const u32* c = w.row<u32>(o.c);
  alignas(64) u32 t[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    u32 r = 0;
    if (lut & 1) r |= ~a[i] & ~b[i] & ~c[i];
    if (lut & 2) r |= ~a[i] & ~b[i] & c[i];
    if (lut & 4) r |= ~a[i] & b[i] & ~c[i];
    if (lut & 8) r |= ~a[i] & b[i] & c[i];
    if (lut & 16) r |= a[i] & ~b[i] & ~c[i];
    if (lut & 32) r |= a[i] & ~b[i] & c[i];
    if (lut & 64) r |= a[i] & b[i] & ~c[i];
    if (lut & 128) r |= a[i] & b[i] & c[i];
    t[i] = r;
  }
  put(w.row<u32>(o.d), t, m);
}

template <typename U, typename S, bool Signed>
void bit_field_extract(Warp& w, const Op& o, u32 m) {
  map3<U, U, u32, u32>(w, o, m, [](U a, u32 b, u32 c) { return extract_field<U, S>(a, b, c, Signed); });
}

template <typename U>
void bit_field_insert(Warp& w, const Op& o, u32 m) {
  const U* a = w.row<U>(o.a);
  const U* b = w.row<U>(o.b);
  const u32* c = w.row<u32>(o.c);
  const u32* e = w.row<u32>(static_cast<u32>(o.imm));
  alignas(64) U t[kLanes];
  for (int i = 0; i < kLanes; ++i) t[i] = insert_field<U>(a[i], b[i], c[i], e[i]);
  put(w.row<U>(o.d), t, m);
}

template <bool ASigned, bool BSigned>
void dp4a(Warp& w, const Op& o, u32 m) {
  map3<u32, u32, u32, u32>(w, o, m, [](u32 a, u32 b, u32 c) {
    i32 sum = static_cast<i32>(c);
    for (int i = 0; i < 4; ++i) {
      const i32 x = ASigned ? static_cast<i8>(a >> (8 * i)) : static_cast<u8>(a >> (8 * i));
      const i32 y = BSigned ? static_cast<i8>(b >> (8 * i)) : static_cast<u8>(b >> (8 * i));
      sum = static_cast<i32>(static_cast<u32>(sum) + static_cast<u32>(x * y));
    }
    return static_cast<u32>(sum);
  });
}

}  // namespace

bool decode_bits(Decoder& d, const Instruction& in, Op& op) {
  const std::string& name = in.parts[0];
  const std::string& type = in.parts.back();
  const int width = in.parts.size() > 1 ? type_bits(type) : 0;
  const auto& o = in.operands;

  if (name == "lop3") {
    if (o.size() != 5 || in.parts.size() != 2) return false;
    op.cls = Class::kInteger;
    op.d = d.destination(o[0]), op.a = d.source(o[1], 32), op.b = d.source(o[2], 32), op.c = d.source(o[3], 32);
    op.imm = o[4].value;
    op.run = lop3;
    return true;
  }
  if (name == "bfe" || name == "bfi") {
    op.cls = Class::kInteger;
    op.d = d.destination(o[0]), op.a = d.source(o[1], width);
    if (name == "bfe") {
      op.b = d.source(o[2], 32), op.c = d.source(o[3], 32);
      op.run = type == "u32"   ? bit_field_extract<u32, i32, false>
               : type == "s32" ? bit_field_extract<u32, i32, true>
               : type == "u64" ? bit_field_extract<u64, i64, false>
                               : bit_field_extract<u64, i64, true>;
    } else {
      op.b = d.source(o[2], width), op.c = d.source(o[3], 32), op.imm = d.source(o[4], 32);
      op.run = width == 32 ? bit_field_insert<u32> : bit_field_insert<u64>;
    }
    return true;
  }
  if (name == "dp4a") {
    op.cls = Class::kInteger;
    op.d = d.destination(o[0]), op.a = d.source(o[1], 32), op.b = d.source(o[2], 32), op.c = d.source(o[3], 32);
    const bool as = in.parts[1] == "s32", bs = in.parts[2] == "s32";
    op.run = as ? (bs ? dp4a<true, true> : dp4a<true, false>) : (bs ? dp4a<false, true> : dp4a<false, false>);
    return true;
  }
  return false;
}

}  // namespace emu
