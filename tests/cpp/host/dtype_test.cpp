#include "amber/dtype.h"

#include <gtest/gtest.h>

#include <cmath>

namespace {

// The value of a 16-bit float by its definition.
double value_of(uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = bits >> 15 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) return mantissa ? NAN : sign * INFINITY;
  const double fraction = std::ldexp(mantissa, -mantissa_bits);
  return sign * (exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1.0 + fraction, exponent - bias));
}

template <typename T>
void check_every_value(int exponent_bits, int mantissa_bits) {
  for (int bits = 0; bits < 1 << 16; ++bits) {
    const T half{static_cast<uint16_t>(bits)};
    const double expected = value_of(half.bits, exponent_bits, mantissa_bits);
    const float actual = amber::to_float(half);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(actual)) << bits;
      ASSERT_TRUE(std::isnan(amber::to_float(amber::from_float<T>(actual)))) << bits;
    } else {
      ASSERT_EQ(expected, actual) << bits;
      ASSERT_EQ(std::signbit(expected), std::signbit(actual)) << bits;
      ASSERT_EQ(amber::from_float<T>(actual).bits, half.bits);
    }
  }
}

// Between two neighbours, values round to the nearer one, and halfway to the even one.
template <typename T>
void check_rounding(uint16_t last_finite) {
  for (int bits = 0; bits < last_finite; ++bits) {
    const T low{static_cast<uint16_t>(bits)};
    const T high{static_cast<uint16_t>(bits + 1)};
    const float a = amber::to_float(low);
    const float b = amber::to_float(high);
    const float middle = static_cast<float>((static_cast<double>(a) + b) / 2);
    const uint16_t even = bits % 2 == 0 ? low.bits : high.bits;
    ASSERT_EQ(amber::from_float<T>(middle).bits, even) << bits;
    ASSERT_EQ(amber::from_float<T>(std::nextafter(middle, a)).bits, low.bits) << bits;
    ASSERT_EQ(amber::from_float<T>(std::nextafter(middle, b)).bits, high.bits) << bits;
  }
}

TEST(DType, Float16EveryValue) { check_every_value<amber::Float16>(5, 10); }
TEST(DType, BFloat16EveryValue) { check_every_value<amber::BFloat16>(8, 7); }
TEST(DType, Float16RoundsToNearestEven) { check_rounding<amber::Float16>(0x7bff); }
TEST(DType, BFloat16RoundsToNearestEven) { check_rounding<amber::BFloat16>(0x7f7f); }

TEST(DType, OverflowRoundsToInfinity) {
  EXPECT_EQ(amber::to_float16(65519.99f).bits, 0x7bff);
  EXPECT_EQ(amber::to_float16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(amber::to_float16(-1e30f).bits, 0xfc00);
  EXPECT_EQ(amber::to_bfloat16(3.4e38f).bits, 0x7f80);
}

}  // namespace
