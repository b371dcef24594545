// 32 columns of 2:4 on the way to 8 bits, for host and device. The smoothed survivors stay in fp32: the tournament's
// own conditions pick them, and no nibble has to be taken apart again.
#pragma once

#include "amber/cuda/compress/compress_columns.h"
#include "amber/cuda/compress/quantize_compress_args.h"

namespace amber::cuda {

inline constexpr int kChunkQuads = kQuantizeColumns / 4;

struct QuadsChunk {
  float value[2 * kChunkQuads];
  uint32_t nibbles;
};

#define AMBER_EIGHT_ONES 1, 1, 1, 1, 1, 1, 1, 1
#if defined(__CUDACC__)
alignas(16) static __device__ const
    float kOnesOnDevice[kQuantizeColumns] = {AMBER_EIGHT_ONES, AMBER_EIGHT_ONES, AMBER_EIGHT_ONES, AMBER_EIGHT_ONES};
#endif
alignas(16) static const
    float kOnes[kQuantizeColumns] = {AMBER_EIGHT_ONES, AMBER_EIGHT_ONES, AMBER_EIGHT_ONES, AMBER_EIGHT_ONES};
#undef AMBER_EIGHT_ONES

// The factors from column k on, or ones: they are loaded too, so that nothing is asked for each quad.
AMBER_HOST_DEVICE const float* factors_or_ones(const float* factors, int64_t k) {
#if defined(__CUDA_ARCH__)
  return factors ? factors + k : kOnesOnDevice;
#else
  return factors ? factors + k : kOnes;
#endif
}

// The survivors of four floats, by halves of 16 bits, for which the outcome is made. By the tournament's conditions it
// would be two instructions less, but of several quads those are more than a GPU has registers for conditions.
AMBER_HOST_DEVICE void pick_floats(const float (&value)[4], uint32_t outcome, float* kept) {
  uint32_t half[2];
  AMBER_UNROLL
  for (int i = 0; i < 2; ++i) {
    const uint32_t halves = i == 0 ? 0x5410u : 0x7632u;
    half[i] = pick_bytes(pick_bytes(bits_of_float(value[0]), bits_of_float(value[1]), halves),
                         pick_bytes(bits_of_float(value[2]), bits_of_float(value[3]), halves), outcome);
  }
  kept[0] = float_from_bits(pick_bytes(half[0], half[1], 0x5410u));
  kept[1] = float_from_bits(pick_bytes(half[0], half[1], 0x7632u));
}

// Sums of a thread in fp32.
struct QuadsSums {
  float sum = 0.0f, squares = 0.0f, kept_sum = 0.0f, kept_squares = 0.0f;
};

// Four columns, two words: their smoothed survivors, and the tournament's outcome.
template <typename T, bool Rescaled>
AMBER_HOST_DEVICE uint32_t select_quad(const WindowWords& columns, const float* scale, const float* smooth, float* kept,
                                       QuadsSums& sums) {
  uint32_t key[4];
  float value[4], scale_of[4], smooth_of[4];
  load_4_floats(scale, scale_of);
  load_4_floats(smooth, smooth_of);
  AMBER_UNROLL
  for (int i = 0; i < 4; ++i) {
    const uint32_t two = i < 2 ? columns.low : columns.high;
    const float x = widen(T{static_cast<uint16_t>(i % 2 ? two >> 16 : two & 0xffffu)});
    key[i] = score_key(x, scale_of[i]);
    value[i] = x * smooth_of[i];
    if constexpr (Rescaled) sums.sum += value[i], sums.squares += value[i] * value[i];
  }
  const uint32_t outcome = tournament_2_4(key[0], key[1], key[2], key[3]);
  pick_floats(value, outcome, kept);
  if constexpr (Rescaled) {
    sums.kept_sum += kept[0] + kept[1];
    sums.kept_squares += kept[0] * kept[0] + kept[1] * kept[1];
  }
  return outcome;
}

// Four values as bytes of a word, `filter` being 0 for a token that is not finite, else all ones.
template <QuantizedType Type>
AMBER_HOST_DEVICE uint32_t quantize_4(const float* value, float inverse, uint32_t filter) {
  uint32_t words[2];
  AMBER_UNROLL
  for (int i = 0; i < 2; ++i) {
    const float low = value[2 * i], high = value[2 * i + 1];
    if constexpr (Type == QuantizedType::kInt8) {
      words[i] = pick_bytes(int8_bits(low, inverse), int8_bits(high, inverse), 0x0040u);
    } else {
      words[i] = e4m3_pair(low, high, inverse);
    }
  }
  return pick_bytes(words[0], words[1], 0x5410u) & filter;
}

template <QuantizedType Type>
AMBER_HOST_DEVICE Words4 quantize_quads(const QuadsChunk& chunk, float inverse) {
  const uint32_t filter = inverse == 0.0f ? 0u : ~0u;
  Words4 words;
  AMBER_UNROLL
  for (int i = 0; i < 4; ++i) words.word[i] = quantize_4<Type>(chunk.value + 4 * i, inverse, filter);
  return words;
}

}  // namespace amber::cuda
