// silu(x) = x / (1 + e^-x) in fp32: the same bits on a GPU and on the host, whatever the libraries' exp. Its error is
// below 3e-7 of the result; of every 16-bit number, rounded to 16 bits again, it is the nearest to the exact value.
#pragma once

#include <cmath>

#include "amber/macros.h"
#include "amber/quantize.h"

namespace amber::cuda {

// Rounded once, on the host too.
AMBER_HOST_DEVICE float fused_multiply_add(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return std::fma(a, b, c);
#endif
}

AMBER_HOST_DEVICE float silu(float x) {
  // Beyond these e^-x is 0 beside 1, or its fp32 number is Inf. NaN becomes a number here and is back in the product.
  constexpr float kSmallest = -80.0f, kLargest = 88.72283f;
  const float minus_x = fminf(fmaxf(-x, kSmallest), kLargest);
  // e^-x = 2^n e^r with |r| <= ln 2 / 2. Adding 1.5 * 2^23 leaves n in the low bits of the sum.
  const float shifted = fused_multiply_add(minus_x, 0x1.715476p+0f, 0x1.8p23f);
  const float n = shifted - 0x1.8p23f;
  const float high = fused_multiply_add(n, -0x1.63p-1f, minus_x);  // ln 2 in two parts
  const float r = fused_multiply_add(n, 0x1.bd0106p-13f, high);
  float power = 0x1.106250p-7f;  // of degree 5; the relative error is 1.1e-7 at most
  power = fused_multiply_add(power, r, 0x1.572a64p-5f);
  power = fused_multiply_add(power, r, 0x1.5557b0p-3f);
  power = fused_multiply_add(power, r, 0x1.fffdfcp-2f);
  power = fused_multiply_add(power, r, 1.0f);
  power = fused_multiply_add(power, r, 1.0f);
  // A sixteenth of all that follows, so that neither the sum nor its reciprocal leaves the normal numbers.
  constexpr uint32_t kSixteenth = 4u << 23;
  const float sum = float_from_bits(bits_of_float(power) + (bits_of_float(shifted) << 23) - kSixteenth) + 0.0625f;
  // Newton's steps from a guess by its bits, which is within 13 %. Divisions branch on a GPU.
  float reciprocal = float_from_bits(0x7ef311c7u - bits_of_float(sum));
  AMBER_UNROLL
  for (int step = 0; step < 3; ++step) {
    reciprocal = fused_multiply_add(reciprocal, fused_multiply_add(-sum, reciprocal, 1.0f), reciprocal);
  }
  if (-x > kLargest) reciprocal = 0.0f;  // as x / Inf: -0, and NaN for -Inf
  return x * 0.0625f * reciprocal;
}

}  // namespace amber::cuda
