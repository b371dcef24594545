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
// float are monotone in its value. Keys are for comparing only: NaN's is another one on a GPU.
AMBER_HOST_DEVICE uint32_t score_key(float x, float c) {
#if defined(__CUDA_ARCH__)
  // One FMUL, which makes 0x7fffffff of every NaN. In PTX: of a product with 1 the compiler makes none, and with it
  // would go the NaNs' being equal.
  float product;
  asm("{\n\t.reg .f32 magnitude;\n\tabs.f32 magnitude, %1;\n\tmul.f32 %0, magnitude, %2;\n\t}"
      : "=f"(product)
      : "f"(x), "f"(c));
  return __float_as_uint(product);
#else
  const float product = x * c;  // c > 0, so |x * c| is exactly |x| * c
  uint32_t bits;
  std::memcpy(&bits, &product, sizeof bits);
  bits &= 0x7fffffffu;
  return bits > kInfKey ? kNanKey : bits;
#endif
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

// ---- 2:4 by a tournament
//
// Columns 0 and 1 play, columns 2 and 3 play. Say the winners are W and V and the losers w and v. There are three
// outcomes, since W is before w and V before v:
//   w before V: then both of {W, w} are before V and so before v. They survive.
//   v before W: likewise {V, v} survive.
//   neither: then V is before w and W before v, so w has W and V before it, and v too. W and V survive.
// "Before" is by key, then by column; the left half's columns are the lower ones. So left wins a tie: w is before V
// when its key is not smaller, v is before W only when its key is larger.
//
// The outcome is one number, made of constants: what it takes to gather the survivors on a GPU costs nothing more.
//   bits 0 to 15   PRMT's selector: the bytes of two 16-bit columns out of four
//   bits 16 to 19  the mask of the survivors
//   bits 28 to 31  their nibble of E (metadata.h); at the top, so that a funnel shift moves it into a word of E
// Where each half has one survivor, the outcome is the sum of their shares.
inline constexpr uint32_t kShareOf0 = 0x00010010u, kShareOf1 = 0x10020032u;
inline constexpr uint32_t kShareOf2 = 0x80045400u, kShareOf3 = 0xc0087600u;
inline constexpr uint32_t kBothOfLower = 0x40033210u, kBothOfUpper = 0xe00c7654u;

// Key: uint32_t, or a vector of 32-bit integers, one group a lane (`condition ? a : b` chooses by lane then).
template <typename Key>
AMBER_HOST_DEVICE Key tournament_2_4(Key key0, Key key1, Key key2, Key key3) {
  const auto constant = [](uint32_t value) { return Key{} + static_cast<int32_t>(value); };
  const auto lower_wins = key0 >= key1, upper_wins = key2 >= key3;
  const Key lower_best = lower_wins ? key0 : key1, lower_other = lower_wins ? key1 : key0;
  const Key upper_best = upper_wins ? key2 : key3, upper_other = upper_wins ? key3 : key2;
  Key outcome = (lower_wins ? constant(kShareOf0) : constant(kShareOf1)) +
                (upper_wins ? constant(kShareOf2) : constant(kShareOf3));
  outcome = lower_other >= upper_best ? constant(kBothOfLower) : outcome;
  return upper_other > lower_best ? constant(kBothOfUpper) : outcome;
}

template <typename Key>
AMBER_HOST_DEVICE Key tournament_mask(Key outcome) {
  return (outcome >> 16) & 15;
}

AMBER_HOST_DEVICE uint32_t survivors_2_4(const uint32_t (&key)[4]) {
  return tournament_mask(tournament_2_4(key[0], key[1], key[2], key[3]));
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
