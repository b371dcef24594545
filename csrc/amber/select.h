// The choice of survivors: the one definition that the CPU and CUDA kernels share.
//
// Score (Amber Pruner, arXiv 2508.02128, section 3): S_j = |x_j| * c_j in fp32. The N largest of
// each aligned group of M survive; on equal scores the lower index wins; NaN ranks above
// everything, then Inf, so that bad values reach the output instead of vanishing.
#pragma once

#include <cstdint>
#include <cstring>

#include "amber/macros.h"

namespace amber {

// All NaNs rank equal, whatever their payload.
constexpr uint32_t kNanKey = 0x7fc00000u;
constexpr uint32_t kInfKey = 0x7f800000u;

// A key whose unsigned (and signed) order is the order of the scores: the bits of a non-negative
// float are monotone in its value.
AMBER_HOST_DEVICE uint32_t score_key(float x, float c) {
  const float product = x * c;  // c > 0, so |x * c| is exactly |x| * c
  uint32_t bits;
#if defined(__CUDA_ARCH__)
  bits = __float_as_uint(product);
#else
  std::memcpy(&bits, &product, sizeof bits);
#endif
  bits &= 0x7fffffffu;
  return bits > kInfKey ? kNanKey : bits;
}

// Bit i of the result is set when element i is among the n largest of the M keys.
template <int M>
AMBER_HOST_DEVICE uint32_t survivors(const uint32_t (&key)[M], int n) {
  int rank[M] = {};
  AMBER_UNROLL
  for (int i = 0; i < M; ++i) {
    AMBER_UNROLL
    for (int j = i + 1; j < M; ++j) {
      const int i_first = key[i] >= key[j];
      rank[j] += i_first;
      rank[i] += 1 - i_first;
    }
  }
  uint32_t mask = 0;
  AMBER_UNROLL
  for (int i = 0; i < M; ++i) {
    mask |= static_cast<uint32_t>(rank[i] < n) << i;
  }
  return mask;
}

// 2:4 without ranks: an element survives when it beats at least two of the other three, a majority
// vote that becomes one predicate instruction on a GPU.
AMBER_HOST_DEVICE uint32_t survivors_2_4(const uint32_t (&key)[4]) {
  const bool b01 = key[0] >= key[1], b02 = key[0] >= key[2], b03 = key[0] >= key[3];
  const bool b12 = key[1] >= key[2], b13 = key[1] >= key[3], b23 = key[2] >= key[3];
  const auto majority = [](bool a, bool b, bool c) { return (a & b) | (c & (a | b)); };
  return static_cast<uint32_t>(majority(b01, b02, b03)) | static_cast<uint32_t>(majority(!b01, b12, b13)) << 1 |
         static_cast<uint32_t>(majority(!b02, !b12, b23)) << 2 | static_cast<uint32_t>(majority(!b03, !b13, !b23)) << 3;
}

// `survivors` for an M known only at run time (m <= 32).
AMBER_HOST_DEVICE uint32_t survivors(const uint32_t* key, int n, int m) {
  uint32_t mask = 0;
  for (int i = 0; i < m; ++i) {
    int rank = 0;
    for (int j = 0; j < m; ++j) {
      rank += j < i ? key[j] >= key[i] : key[j] > key[i];
    }
    mask |= static_cast<uint32_t>(rank < n) << i;
  }
  return mask;
}

}  // namespace amber
