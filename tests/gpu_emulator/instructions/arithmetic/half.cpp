// fp16 and bf16, one and two to a register.
#include "instructions/arithmetic/float.h"
#include "instructions/arithmetic/lanes.h"

namespace emu {
namespace {

u32 h(float f) { return float_to_half_rn(f); }
float hf(u32 x) { return half_to_float(static_cast<u16>(x)); }
u32 bf(float f) { return float_to_bf16_rn(f); }
float bff(u32 x) { return bf16_to_float(static_cast<u16>(x)); }

template <typename F>
u32 both(u32 a, u32 b, F f) {
  return static_cast<u32>(f(static_cast<u16>(a), static_cast<u16>(b))) |
         static_cast<u32>(f(static_cast<u16>(a >> 16), static_cast<u16>(b >> 16))) << 16;
}
template <typename F>
u32 both3(u32 a, u32 b, u32 c, F f) {
  return static_cast<u32>(f(static_cast<u16>(a), static_cast<u16>(b), static_cast<u16>(c))) |
         static_cast<u32>(f(static_cast<u16>(a >> 16), static_cast<u16>(b >> 16), static_cast<u16>(c >> 16))) << 16;
}

u16 fma_half(u16 a, u16 b, u16 c) {
  return float_to_half(fma_to_odd(half_to_float(a), half_to_float(b), half_to_float(c)));
}
u16 fma_bf16(u16 a, u16 b, u16 c) {
  return double_to_bf16(fma_to_odd(bf16_to_float(a), bf16_to_float(b), bf16_to_float(c)));
}
u16 relu_half(u16 x) { return (x & 0x7fffu) > 0x7c00u ? kNan16 : (x & 0x8000u) ? 0 : x; }
u16 relu_bf16(u16 x) { return (x & 0x7fffu) > 0x7f80u ? kNan16 : (x & 0x8000u) ? 0 : x; }
u16 sat_half(u16 x) { return static_cast<u16>(h(saturate(hf(x)))); }

}  // namespace

const Table& half_table() {
  static const Table table{
      {"add.f16", OP2(u32, u32, u32, h(hf(a) + hf(b)))},
      {"sub.f16", OP2(u32, u32, u32, h(hf(a) - hf(b)))},
      {"mul.f16", OP2(u32, u32, u32, h(hf(a) * hf(b)))},
      {"fma.f16", OP3(u32, u32, u32, u32, fma_half(static_cast<u16>(a), static_cast<u16>(b), static_cast<u16>(c)))},
      {"fma.relu.f16",
       OP3(u32, u32, u32, u32, relu_half(fma_half(static_cast<u16>(a), static_cast<u16>(b), static_cast<u16>(c))))},
      {"min.f16", OP2(u32, u32, u32, h(min_number(hf(a), hf(b))))},
      {"max.f16", OP2(u32, u32, u32, h(max_number(hf(a), hf(b))))},
      {"min.NaN.f16", OP2(u32, u32, u32, h(min_nan(hf(a), hf(b))))},
      {"max.NaN.f16", OP2(u32, u32, u32, h(max_nan(hf(a), hf(b))))},
      {"neg.f16", OP1(u32, u32, a ^ 0x8000u)},
      {"abs.f16", OP1(u32, u32, a & 0x7fffu)},
      {"neg.bf16", OP1(u32, u32, a ^ 0x8000u)},
      {"abs.bf16", OP1(u32, u32, a & 0x7fffu)},
      {"add.bf16", OP2(u32, u32, u32, double_to_bf16(fma_to_odd(bff(a), 1.0, bff(b))))},
      {"sub.bf16", OP2(u32, u32, u32, double_to_bf16(fma_to_odd(bff(a), 1.0, -bff(b))))},
      {"mul.bf16", OP2(u32, u32, u32, double_to_bf16(static_cast<double>(bff(a)) * bff(b)))},
      {"fma.bf16", OP3(u32, u32, u32, u32, fma_bf16(static_cast<u16>(a), static_cast<u16>(b), static_cast<u16>(c)))},
      {"min.bf16", OP2(u32, u32, u32, bf(min_number(bff(a), bff(b))))},
      {"max.bf16", OP2(u32, u32, u32, bf(max_number(bff(a), bff(b))))},
      {"add.f16x2", OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return h(hf(x) + hf(y)); }))},
      {"sub.f16x2", OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return h(hf(x) - hf(y)); }))},
      {"mul.f16x2", OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return h(hf(x) * hf(y)); }))},
      {"add.sat.f16x2",
       OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return sat_half(static_cast<u16>(h(hf(x) + hf(y)))); }))},
      {"fma.f16x2", OP3(u32, u32, u32, u32, both3(a, b, c, fma_half))},
      {"fma.relu.f16x2",
       OP3(u32, u32, u32, u32, both3(a, b, c, [](u16 x, u16 y, u16 z) { return relu_half(fma_half(x, y, z)); }))},
      {"min.f16x2", OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return h(min_number(hf(x), hf(y))); }))},
      {"max.f16x2", OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return h(max_number(hf(x), hf(y))); }))},
      {"add.bf16x2",
       OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return double_to_bf16(fma_to_odd(bff(x), 1.0, bff(y))); }))},
      {"sub.bf16x2",
       OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return double_to_bf16(fma_to_odd(bff(x), 1.0, -bff(y))); }))},
      {"mul.bf16x2",
       OP2(u32, u32, u32,
           both(a, b, [](u16 x, u16 y) { return double_to_bf16(static_cast<double>(bff(x)) * bff(y)); }))},
      {"fma.bf16x2", OP3(u32, u32, u32, u32, both3(a, b, c, fma_bf16))},
      {"fma.relu.bf16x2",
       OP3(u32, u32, u32, u32, both3(a, b, c, [](u16 x, u16 y, u16 z) { return relu_bf16(fma_bf16(x, y, z)); }))},
      {"min.bf16x2", OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return bf(min_number(bff(x), bff(y))); }))},
      {"max.bf16x2", OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return bf(max_number(bff(x), bff(y))); }))},
      {"neg.f16x2", OP1(u32, u32, a ^ 0x80008000u)},
      {"abs.f16x2", OP1(u32, u32, a & 0x7fff7fffu)},
      {"neg.bf16x2", OP1(u32, u32, a ^ 0x80008000u)},
      {"abs.bf16x2", OP1(u32, u32, a & 0x7fff7fffu)},
  };
  return table;
}

}  // namespace emu
