// Symmetric 8-bit quantisation of one token (or one weight row): the one definition that the CPU and
// CUDA kernels share.
//
// scale = absmax / largest, q = round(v * (largest / absmax)) to nearest even. A token that holds NaN
// or Inf has no 8-bit form: its values are 0 and its scale is NaN, so that every output of that token
// is NaN and no other token is touched.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "amber/macros.h"
#include "amber/select.h"

#if defined(__CUDACC__)
#include <cuda_fp8.h>
#endif

namespace amber {

enum class QuantizedType { kInt8, kE4m3 };

constexpr AMBER_HOST_DEVICE float largest_value(QuantizedType type) {
  return type == QuantizedType::kInt8 ? 127.0f : 448.0f;
}

// Smaller absolute maxima (zero tokens among them) count as this one: then the scale is a normal
// number and its reciprocal is finite.
constexpr float kSmallestAbsmax = 0x1p-110f;

AMBER_HOST_DEVICE uint32_t bits_of_float(float v) {
  uint32_t bits;
#if defined(__CUDA_ARCH__)
  bits = __float_as_uint(v);
#else
  std::memcpy(&bits, &v, sizeof bits);
#endif
  return bits;
}

// As score_key: bits whose order as integers is the order of |v|, NaN above Inf above all.
AMBER_HOST_DEVICE uint32_t absolute_bits(float v) { return bits_of_float(v) & 0x7fffffffu; }

AMBER_HOST_DEVICE float float_from_bits(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

struct TokenScale {
  float scale;    // the value of 1 unit
  float inverse;  // units per 1; 0 for a token that is not finite
};

// From the largest `absolute_bits` of the token.
AMBER_HOST_DEVICE TokenScale token_scale(uint32_t absmax_bits, float largest) {
  if (absmax_bits >= kInfKey) return {float_from_bits(kNanKey), 0.0f};
  const float absmax = float_from_bits(absmax_bits);
  const float clamped = absmax > kSmallestAbsmax ? absmax : kSmallestAbsmax;
  return {clamped / largest, largest / clamped};
}

// The larger of `absmax_bits` and |v|'s, as of absolute_bits; of NaNs any one.
AMBER_HOST_DEVICE uint32_t max_magnitude(uint32_t absmax_bits, float v) {
#if defined(__CUDA_ARCH__)
  float larger;
  asm("{\n\t.reg .f32 magnitude;\n\tabs.f32 magnitude, %2;\n\tmax.NaN.f32 %0, %1, magnitude;\n\t}"
      : "=f"(larger)
      : "f"(__uint_as_float(absmax_bits)), "f"(v));
  return __float_as_uint(larger);
#else
  const uint32_t bits = absolute_bits(v);
  return bits > absmax_bits ? bits : absmax_bits;
#endif
}

// The low byte is v in units, of a token that is finite. |v * inverse| is at most 127 but for a rounding, so it needs
// no clamp. Adding 1.5 * 2^23 puts the unit at the last place of the sum: the FPU's rounding is the one wanted. On a
// GPU that is also four times as fast as a conversion; the product must be rounded before the sum.
AMBER_HOST_DEVICE uint32_t int8_bits(float v, float inverse) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(__fadd_rn(__fmul_rn(v, inverse), 0x1.8p23f));
#else
  return absolute_bits(v * inverse + 0x1.8p23f);
#endif
}

AMBER_HOST_DEVICE int8_t to_int8(float v, float inverse) {
  return inverse == 0.0f ? int8_t{0} : static_cast<int8_t>(int8_bits(v, inverse) & 0xffu);
}

AMBER_HOST_DEVICE uint8_t to_e4m3(float v, float inverse) {
  if (inverse == 0.0f) return 0;
  const float value = v * inverse;
#if defined(__CUDA_ARCH__)
  return __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
#else
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t magnitude = bits & 0x7fffffffu, sign = (bits >> 24) & 0x80u;
  if (magnitude >= 0x43e00000u) return static_cast<uint8_t>(sign | 0x7eu);  // 448, the largest
  if (magnitude < 0x3c800000u) {
    // Below 2^-6 the result is a multiple of 2^-9; adding 2^14 puts that unit at the last place.
    const float shifted = float_from_bits(magnitude) + 0x1p14f;
    return static_cast<uint8_t>(sign | (absolute_bits(shifted) - 0x46800000u));
  }
  const uint32_t rounded = magnitude + 0x7ffffu + ((magnitude >> 20) & 1u);
  return static_cast<uint8_t>(sign | ((rounded - 0x3c000000u) >> 20));
#endif
}

// Two at once, the first in the low byte; not for a token that is not finite.
AMBER_HOST_DEVICE uint32_t e4m3_pair(float first, float second, float inverse) {
#if defined(__CUDA_ARCH__)
  return __nv_cvt_float2_to_fp8x2(make_float2(first * inverse, second * inverse), __NV_SATFINITE, __NV_E4M3);
#else
  return to_e4m3(first, inverse) | static_cast<uint32_t>(to_e4m3(second, inverse)) << 8;
#endif
}

}  // namespace amber
