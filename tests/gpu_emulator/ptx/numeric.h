// Number formats of PTX on a host without them: fp16, bf16, e4m3, e5m2, and NaN rules.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace emu {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using i8 = int8_t;
using i16 = int16_t;
using i32 = int32_t;
using i64 = int64_t;

template <typename To, typename From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline constexpr u32 kNan32 = 0x7fffffffu;
inline constexpr u16 kNan16 = 0x7fffu;

inline float canonical(float value) { return value != value ? bits<float>(kNan32) : value; }
inline double canonical(double value) { return value != value ? bits<double>(u64{0x7fffffffffffffff}) : value; }

inline float half_to_float(u16 h) {
  const u32 sign = static_cast<u32>(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
  if (exponent == 31) return mantissa ? bits<float>(kNan32) : bits<float>(sign | 0x7f800000u);
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return bits<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

inline float bf16_to_float(u16 b) { return bits<float>(static_cast<u32>(b) << 16); }

enum class Round { kNearest, kZero, kDown, kUp, kNearestAway };

// Rounds `value` (a double that carries the exact value, or one that rounds as it does) to a binary format
// with `mantissa_bits` after the leading one and minimum normal exponent `min_exponent`.
inline double round_to_format(double value, int mantissa_bits, int min_exponent, Round round) {
  if (value == 0.0 || !std::isfinite(value)) return value;
  int exponent;
  std::frexp(value, &exponent);
  exponent -= 1;  // value = 1.x * 2^exponent
  if (exponent < min_exponent) exponent = min_exponent;
  const double unit = std::ldexp(1.0, exponent - mantissa_bits);
  const double scaled = value / unit;
  double rounded = scaled;
  switch (round) {
    case Round::kNearest:
      rounded = std::nearbyint(scaled);
      break;
    case Round::kZero:
      rounded = std::trunc(scaled);
      break;
    case Round::kDown:
      rounded = std::floor(scaled);
      break;
    case Round::kUp:
      rounded = std::ceil(scaled);
      break;
    case Round::kNearestAway:
      rounded = std::round(scaled);
      break;
  }
  return rounded == 0.0 ? std::copysign(0.0, value) : rounded * unit;
}

inline u16 encode_small(double value, int exponent_bits, int mantissa_bits) {
  // `value` is already representable; finite.
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const u16 sign = std::signbit(value) ? static_cast<u16>(1u << (exponent_bits + mantissa_bits)) : 0;
  value = std::fabs(value);
  if (value == 0.0) return sign;
  int exponent;
  std::frexp(value, &exponent);
  exponent -= 1;
  if (exponent < 1 - bias) {
    return static_cast<u16>(sign | static_cast<u16>(std::ldexp(value, bias - 1 + mantissa_bits)));
  }
  const double fraction = std::ldexp(value, -exponent) - 1.0;
  return static_cast<u16>(sign | ((exponent + bias) << mantissa_bits) |
                          static_cast<u16>(std::ldexp(fraction, mantissa_bits)));
}

inline u16 float_to_half(double value, Round round = Round::kNearest, bool saturate = false) {
  if (value != value) return kNan16;
  const u16 sign = std::signbit(value) ? 0x8000u : 0;
  if (std::isinf(value)) return static_cast<u16>(sign | (saturate ? 0x7bffu : 0x7c00u));
  const double rounded = round_to_format(value, 10, -14, round);
  if (std::fabs(rounded) > 65504.0) {
    const bool to_infinity = round == Round::kNearest || round == Round::kNearestAway ||
                             (round == Round::kUp && !sign) || (round == Round::kDown && sign);
    return static_cast<u16>(sign | (saturate || !to_infinity ? 0x7bffu : 0x7c00u));
  }
  return encode_small(rounded, 5, 10);
}

// The common case, without doubles.
inline u16 float_to_half_rn(float value) {
  const u32 u = bits<u32>(value), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return kNan16;
  if (magnitude >= 0x477ff000u) return static_cast<u16>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Subnormal or zero: adding 0.5 rounds at bit 2^-24, ties to even.
    const float shifted = bits<float>(magnitude) + 0.5f;
    return static_cast<u16>(sign | (bits<u32>(shifted) - 0x3f000000u));
  }
  const u32 rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<u16>(sign | ((rounded - 0x38000000u) >> 13));
}

inline u16 float_to_bf16_rn(float value) {
  const u32 u = bits<u32>(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return kNan16;
  return static_cast<u16>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

inline u16 float_to_bf16(float value, Round round) {
  if (round == Round::kNearest) return float_to_bf16_rn(value);
  const u32 u = bits<u32>(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return kNan16;
  if (round == Round::kZero) return static_cast<u16>(u >> 16);
  const double rounded = round_to_format(value, 7, -126, round);
  return static_cast<u16>(bits<u32>(static_cast<float>(rounded)) >> 16);
}

// A double into bf16 to the nearest, correctly also when the double is itself a rounded-to-odd value.
inline u16 double_to_bf16(double value) {
  if (value != value) return kNan16;
  if (std::isinf(value)) return static_cast<u16>(bits<u32>(static_cast<float>(value)) >> 16);
  const double rounded = round_to_format(value, 7, -126, Round::kNearest);
  return static_cast<u16>(bits<u32>(static_cast<float>(rounded)) >> 16);
}

// a * b + c with one rounding left to do: the sum in double, rounded to odd.
inline double fma_to_odd(double a, double b, double c) {
  const double product = a * b;  // exact for fp16 and bf16 factors
  const double sum = product + c;
  if (!std::isfinite(sum)) return sum;
  const double part = sum - product;
  const double error = (product - (sum - part)) + (c - part);
  if (error == 0.0) return sum;
  u64 u = bits<u64>(sum);
  if (u & 1) return sum;
  const bool away = (error > 0) == (sum > 0);
  u += away ? 1 : -1;
  return bits<double>(u);
}

inline float e4m3_to_float(u8 v) {
  const int exponent = (v >> 3) & 15, mantissa = v & 7;
  if (exponent == 15 && mantissa == 7) return bits<float>(kNan32);
  const float magnitude = exponent ? std::ldexp(static_cast<float>(8 + mantissa), exponent - 10)
                                   : std::ldexp(static_cast<float>(mantissa), -9);
  return v & 0x80 ? -magnitude : magnitude;
}

inline float e5m2_to_float(u8 v) { return half_to_float(static_cast<u16>(v) << 8); }

// To the nearest, ties to even, always saturating (PTX knows these only with .satfinite).
inline u8 float_to_e4m3(double value) {
  if (value != value) return 0x7f;
  const u8 sign = std::signbit(value) ? 0x80 : 0;
  const double rounded = round_to_format(value, 3, -6, Round::kNearest);
  if (std::fabs(rounded) > 448.0) return sign | 0x7e;
  return static_cast<u8>(encode_small(rounded, 4, 3));
}

inline u8 float_to_e5m2(double value) {
  if (value != value) return 0x7f;
  const u8 sign = std::signbit(value) ? 0x80 : 0;
  const double rounded = round_to_format(value, 2, -14, Round::kNearest);
  if (std::fabs(rounded) > 57344.0) return sign | 0x7b;
  return static_cast<u8>(encode_small(rounded, 5, 2));
}

}  // namespace emu
