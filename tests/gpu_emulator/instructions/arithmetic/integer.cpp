// Integers and shifts.
#include "instructions/arithmetic/lanes.h"

namespace emu {
namespace {

u32 prmt(u32 a, u32 b, u32 c) {
  const u64 bytes = static_cast<u64>(b) << 32 | a;
  u32 r = 0;
  for (int i = 0; i < 4; ++i) {
    const u32 s = c >> (4 * i);
    u32 v = static_cast<u32>(bytes >> (8 * (s & 7u))) & 0xffu;
    v = (s & 8u) ? ((v & 0x80u) ? 0xffu : 0u) : v;
    r |= v << (8 * i);
  }
  return r;
}

template <typename T>
u32 leading_zeros(T x) {
  if (x == 0) return sizeof(T) * 8;
  return sizeof(T) == 8 ? static_cast<u32>(__builtin_clzll(x)) : static_cast<u32>(__builtin_clz(static_cast<u32>(x)));
}

template <typename T>
T bit_reverse(T x) {
  T r = 0;
  for (size_t i = 0; i < sizeof(T) * 8; ++i) r |= ((x >> i) & 1) << (sizeof(T) * 8 - 1 - i);
  return r;
}

i64 mul_hi(i64 a, i64 b) { return static_cast<i64>((static_cast<__int128>(a) * b) >> 64); }
u64 mul_hi(u64 a, u64 b) { return static_cast<u64>((static_cast<unsigned __int128>(a) * b) >> 64); }

}  // namespace

const Table& integer_table() {
  static const Table table{
      {"add.32", OP2(u32, u32, u32, a + b)},
      {"add.64", OP2(u64, u64, u64, a + b)},
      {"add.16", OP2(u32, u32, u32, (a + b) & 0xffffu)},
      {"sub.32", OP2(u32, u32, u32, a - b)},
      {"sub.64", OP2(u64, u64, u64, a - b)},
      {"sub.16", OP2(u32, u32, u32, (a - b) & 0xffffu)},
      {"mul.lo.32", OP2(u32, u32, u32, a * b)},
      {"mul.lo.64", OP2(u64, u64, u64, a * b)},
      {"mul.lo.16", OP2(u32, u32, u32, (a * b) & 0xffffu)},
      {"mul.hi.u32", OP2(u32, u32, u32, static_cast<u32>(static_cast<u64>(a) * b >> 32))},
      {"mul.hi.s32", OP2(i32, i32, i32, static_cast<i32>(static_cast<i64>(a) * b >> 32))},
      {"mul.hi.u64", OP2(u64, u64, u64, mul_hi(a, b))},
      {"mul.hi.s64", OP2(i64, i64, i64, mul_hi(a, b))},
      {"mul.hi.u16", OP2(u32, u32, u32, a * b >> 16)},
      {"mul.hi.s16", OP2(u32, u32, u32, static_cast<u32>(static_cast<i16>(a) * static_cast<i16>(b)) >> 16)},
      {"mul.wide.u32", OP2(u64, u32, u32, static_cast<u64>(a) * b)},
      {"mul.wide.s32", OP2(i64, i32, i32, static_cast<i64>(a) * b)},
      {"mul.wide.u16", OP2(u32, u32, u32, (a & 0xffffu) * (b & 0xffffu))},
      {"mul.wide.s16", OP2(i32, u32, u32, static_cast<i16>(a) * static_cast<i16>(b))},
      {"mad.lo.32", OP3(u32, u32, u32, u32, a * b + c)},
      {"mad.lo.64", OP3(u64, u64, u64, u64, a * b + c)},
      {"mad.lo.16", OP3(u32, u32, u32, u32, (a * b + c) & 0xffffu)},
      {"mad.hi.u32", OP3(u32, u32, u32, u32, static_cast<u32>(static_cast<u64>(a) * b >> 32) + c)},
      {"mad.hi.s32", OP3(u32, i32, i32, u32, static_cast<u32>(static_cast<i64>(a) * b >> 32) + c)},
      {"mad.hi.u64", OP3(u64, u64, u64, u64, mul_hi(a, b) + c)},
      {"mad.hi.s64", OP3(u64, i64, i64, u64, static_cast<u64>(mul_hi(a, b)) + c)},
      {"mad.wide.u32", OP3(u64, u32, u32, u64, static_cast<u64>(a) * b + c)},
      {"mad.wide.s32", OP3(u64, i32, i32, u64, static_cast<u64>(static_cast<i64>(a) * b) + c)},
      {"mad.wide.u16", OP3(u32, u32, u32, u32, (a & 0xffffu) * (b & 0xffffu) + c)},
      {"mad.wide.s16", OP3(u32, u32, u32, u32, static_cast<u32>(static_cast<i16>(a) * static_cast<i16>(b)) + c)},
      {"div.u32", OP2(u32, u32, u32, b ? a / b : kAll)},
      {"div.u64", OP2(u64, u64, u64, b ? a / b : ~u64{0})},
      {"div.s32", OP2(i32, i32, i32,
                      b == 0    ? -1
                      : b == -1 ? static_cast<i32>(0u - static_cast<u32>(a))
                                : a / b)},
      {"div.s64", OP2(i64, i64, i64,
                      b == 0    ? -1
                      : b == -1 ? static_cast<i64>(u64{0} - static_cast<u64>(a))
                                : a / b)},
      {"div.u16", OP2(u32, u32, u32, b ? a / b : 0xffffu)},
      {"div.s16", OP2(u32, u32, u32, b ? static_cast<u16>(static_cast<i16>(a) / static_cast<i16>(b)) : 0xffffu)},
      {"rem.u32", OP2(u32, u32, u32, b ? a % b : a)},
      {"rem.u64", OP2(u64, u64, u64, b ? a % b : a)},
      {"rem.s32", OP2(i32, i32, i32,
                      b == 0    ? a
                      : b == -1 ? 0
                                : a % b)},
      {"rem.s64", OP2(i64, i64, i64,
                      b == 0    ? a
                      : b == -1 ? 0
                                : a % b)},
      {"rem.u16", OP2(u32, u32, u32, b ? a % b : a)},
      {"rem.s16", OP2(u32, u32, u32, b ? static_cast<u16>(static_cast<i16>(a) % static_cast<i16>(b)) : a)},
      {"min.u32", OP2(u32, u32, u32, a < b ? a : b)},
      {"min.s32", OP2(i32, i32, i32, a < b ? a : b)},
      {"max.u32", OP2(u32, u32, u32, a > b ? a : b)},
      {"max.s32", OP2(i32, i32, i32, a > b ? a : b)},
      {"min.u64", OP2(u64, u64, u64, a < b ? a : b)},
      {"min.s64", OP2(i64, i64, i64, a < b ? a : b)},
      {"max.u64", OP2(u64, u64, u64, a > b ? a : b)},
      {"max.s64", OP2(i64, i64, i64, a > b ? a : b)},
      {"min.u16", OP2(u32, u32, u32, a < b ? a : b)},
      {"max.u16", OP2(u32, u32, u32, a > b ? a : b)},
      {"min.s16", OP2(u32, u32, u32, static_cast<i16>(a) < static_cast<i16>(b) ? a : b)},
      {"max.s16", OP2(u32, u32, u32, static_cast<i16>(a) > static_cast<i16>(b) ? a : b)},
      {"neg.s32", OP1(u32, u32, 0u - a)},
      {"neg.s64", OP1(u64, u64, u64{0} - a)},
      {"neg.s16", OP1(u32, u32, (0u - a) & 0xffffu)},
      {"abs.s32", OP1(u32, i32, a < 0 ? 0u - static_cast<u32>(a) : static_cast<u32>(a))},
      {"abs.s64", OP1(u64, i64, a < 0 ? u64{0} - static_cast<u64>(a) : static_cast<u64>(a))},
      {"and.32", OP2(u32, u32, u32, a & b)},
      {"and.64", OP2(u64, u64, u64, a & b)},
      {"and.16", OP2(u32, u32, u32, a & b)},
      {"or.32", OP2(u32, u32, u32, a | b)},
      {"or.64", OP2(u64, u64, u64, a | b)},
      {"or.16", OP2(u32, u32, u32, a | b)},
      {"xor.32", OP2(u32, u32, u32, a ^ b)},
      {"xor.64", OP2(u64, u64, u64, a ^ b)},
      {"xor.16", OP2(u32, u32, u32, a ^ b)},
      {"not.32", OP1(u32, u32, ~a)},
      {"not.64", OP1(u64, u64, ~a)},
      {"not.16", OP1(u32, u32, ~a & 0xffffu)},
      {"cnot.32", OP1(u32, u32, a == 0 ? 1u : 0u)},
      {"shl.32", OP2(u32, u32, u32, b > 31 ? 0u : a << (b & 31))},
      {"shl.64", OP2(u64, u64, u32, b > 63 ? 0u : a << (b & 63))},
      {"shl.16", OP2(u32, u32, u32, b > 15 ? 0u : (a << (b & 15)) & 0xffffu)},
      {"shr.u32", OP2(u32, u32, u32, b > 31 ? 0u : a >> (b & 31))},
      {"shr.s32", OP2(i32, i32, u32, a >> (b > 31 ? 31 : b))},
      {"shr.u64", OP2(u64, u64, u32, b > 63 ? 0u : a >> (b & 63))},
      {"shr.s64", OP2(i64, i64, u32, a >> (b > 63 ? 63 : b))},
      {"shr.u16", OP2(u32, u32, u32, b > 15 ? 0u : a >> (b & 15))},
      {"shr.s16", OP2(u32, u32, u32, static_cast<u16>(static_cast<i16>(a) >> (b > 15 ? 15 : b)))},
      {"shf.l.wrap", OP3(u32, u32, u32, u32, static_cast<u32>((static_cast<u64>(b) << 32 | a) << (c & 31) >> 32))},
      {"shf.r.wrap", OP3(u32, u32, u32, u32, static_cast<u32>((static_cast<u64>(b) << 32 | a) >> (c & 31)))},
      {"shf.l.clamp",
       OP3(u32, u32, u32, u32, c >= 32 ? a : static_cast<u32>((static_cast<u64>(b) << 32 | a) << c >> 32))},
      {"shf.r.clamp", OP3(u32, u32, u32, u32, c >= 32 ? b : static_cast<u32>((static_cast<u64>(b) << 32 | a) >> c))},
      {"popc.32", OP1(u32, u32, static_cast<u32>(__builtin_popcount(a)))},
      {"popc.64", OP1(u32, u64, static_cast<u32>(__builtin_popcountll(a)))},
      {"clz.32", OP1(u32, u32, leading_zeros(a))},
      {"clz.64", OP1(u32, u64, leading_zeros(a))},
      {"brev.32", OP1(u32, u32, bit_reverse(a))},
      {"brev.64", OP1(u64, u64, bit_reverse(a))},
      {"bfind.u32", OP1(u32, u32, a ? 31 - leading_zeros(a) : kAll)},
      {"bfind.u64", OP1(u32, u64, a ? 63 - leading_zeros(a) : kAll)},
      {"bfind.s32", OP1(u32, i32,
                        leading_zeros(static_cast<u32>(a < 0 ? ~a : a)) == 32
                            ? kAll
                            : 31 - leading_zeros(static_cast<u32>(a < 0 ? ~a : a)))},
      {"bfind.shiftamt.u32", OP1(u32, u32, a ? leading_zeros(a) : kAll)},
      {"prmt", OP3(u32, u32, u32, u32, prmt(a, b, c))},
      {"sad.u32", OP3(u32, u32, u32, u32, c + (a < b ? b - a : a - b))},
      {"sad.s32",
       OP3(u32, i32, i32, u32,
           c + (a < b ? static_cast<u32>(b) - static_cast<u32>(a) : static_cast<u32>(a) - static_cast<u32>(b)))},

  };
  return table;
}

}  // namespace emu
