// fp32 and fp64.
#include "instructions/arithmetic/float.h"

#include "instructions/arithmetic/lanes.h"

namespace emu {

const Table& float_table() {
  static const Table table{
      {"add.f32", OP2(float, float, float, canonical(a + b))},
      {"sub.f32", OP2(float, float, float, canonical(a - b))},
      {"mul.f32", OP2(float, float, float, canonical(a * b))},
      {"fma.f32", OP3(float, float, float, float, canonical(__builtin_fmaf(a, b, c)))},
      {"add.ftz.f32", OP2(float, float, float, flush(canonical(flush(a) + flush(b))))},
      {"sub.ftz.f32", OP2(float, float, float, flush(canonical(flush(a) - flush(b))))},
      {"mul.ftz.f32", OP2(float, float, float, flush(canonical(flush(a) * flush(b))))},
      {"fma.ftz.f32", OP3(float, float, float, float, flush(canonical(__builtin_fmaf(flush(a), flush(b), flush(c)))))},
      {"add.sat.f32", OP2(float, float, float, saturate(a + b))},
      {"mul.sat.f32", OP2(float, float, float, saturate(a * b))},
      {"fma.sat.f32", OP3(float, float, float, float, saturate(__builtin_fmaf(a, b, c)))},
      {"div.f32", OP2(float, float, float, canonical(a / b))},
      {"rcp.f32", OP1(float, float, canonical(1.0f / a))},
      {"sqrt.f32", OP1(float, float, canonical(__builtin_sqrtf(a)))},
      {"rsqrt.f32", OP1(float, float, canonical(static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(a)))))},
      {"ex2.f32", OP1(float, float, canonical(std::exp2(a)))},
      {"lg2.f32", OP1(float, float, canonical(std::log2(a)))},
      {"sin.f32", OP1(float, float, canonical(std::sin(a)))},
      {"cos.f32", OP1(float, float, canonical(std::cos(a)))},
      {"tanh.f32", OP1(float, float, canonical(std::tanh(a)))},
      {"min.f32", OP2(float, float, float, min_number(a, b))},
      {"max.f32", OP2(float, float, float, max_number(a, b))},
      {"min.NaN.f32", OP2(float, float, float, min_nan(a, b))},
      {"max.NaN.f32", OP2(float, float, float, max_nan(a, b))},
      {"neg.f32", OP1(u32, u32, a ^ 0x80000000u)},
      {"abs.f32", OP1(u32, u32, a & 0x7fffffffu)},
      {"copysign.f32", OP2(u32, u32, u32, (a & 0x80000000u) | (b & 0x7fffffffu))},
      {"add.f64", OP2(double, double, double, canonical(a + b))},
      {"sub.f64", OP2(double, double, double, canonical(a - b))},
      {"mul.f64", OP2(double, double, double, canonical(a * b))},
      {"fma.f64", OP3(double, double, double, double, canonical(__builtin_fma(a, b, c)))},
      {"div.f64", OP2(double, double, double, canonical(a / b))},
      {"rcp.f64", OP1(double, double, canonical(1.0 / a))},
      {"sqrt.f64", OP1(double, double, canonical(__builtin_sqrt(a)))},
      {"min.f64", OP2(double, double, double, min_number(a, b))},
      {"max.f64", OP2(double, double, double, max_number(a, b))},
      {"neg.f64", OP1(u64, u64, a ^ (u64{1} << 63))},
      {"abs.f64", OP1(u64, u64, a & ~(u64{1} << 63))},
  };
  return table;
}

}  // namespace emu
