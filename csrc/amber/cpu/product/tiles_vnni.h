// vpdpbusd multiplies unsigned by signed bytes and adds four products to an int32 without saturating. The unsigned ones
// are W + 128; 128 * (the sum of the token's values) is subtracted from each sum beforehand. All of it is exact modulo
// 2^32, so a sum that fits int32 is exact.
#pragma once

#include "amber/cpu/product/scaled_product_vnni.h"
#include "amber/cpu/simd.h"

namespace amber::cpu {
namespace {

constexpr int kPanelVectors = kPanelFeatures / 16;
constexpr int kStep = 64;  // bytes of a vector

// Tokens of a tile: their sums fill 24 of the 32 registers.
constexpr int kTileTokens = 6;
constexpr int kDirectTileTokens = 4;

// Bytes that are fetched ahead of each of the next rows of W: the hardware takes that long to notice them.
constexpr int64_t kAhead = 256;

inline int smaller(int a, int64_t b) { return a < b ? a : static_cast<int>(b); }

constexpr __mmask64 kAll = ~__mmask64{0};

// The first `bytes` of a vector, of more than 64 all.
inline __mmask64 first(int64_t bytes) { return bytes >= kStep ? kAll : (__mmask64{1} << bytes) - 1; }

// W + 128, and 0 in other columns than these.
inline __m512i load_unsigned(const int8_t* weight, __mmask64 columns) {
  const __m512i flip = _mm512_set1_epi8(-128);
  return _mm512_xor_si512(_mm512_mask_loadu_epi8(flip, columns, weight), flip);
}

// Of all lanes, modulo 2^32.
inline uint32_t sum_of_lanes(__m512i v) {
  const __m256i half =
      _mm256_add_epi32(_mm512_maskz_extracti32x8_epi32(0xff, v, 0), _mm512_maskz_extracti32x8_epi32(0xff, v, 1));
  const __m128i quarter = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  const __m128i pair = _mm_add_epi32(quarter, _mm_shuffle_epi32(quarter, 0x4e));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32(pair, 0xb1))));
}

// Masked forms of the instructions, here and below: GCC 12 warns of the others' undefined sources.
template <int kWhich>
inline __m512i shuffle_quarters(__m512i a, __m512i b) {
  return _mm512_maskz_shuffle_i32x4(0xffff, a, b, kWhich);
}

// 16 rows of W and 64 columns of them, as 16 vectors of 4 columns each: a transposition of 4-byte elements.
void pack_block(const int8_t* weight, int64_t stride, int rows, __mmask64 columns, uint8_t* packed) {
  __m512i a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = i < rows ? load_unsigned(weight + i * stride, columns) : __m512i{};
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_maskz_unpacklo_epi32(0xffff, a[i], a[i + 1]);
    b[i + 1] = _mm512_maskz_unpackhi_epi32(0xffff, a[i], a[i + 1]);
  }
  // a[4 * i + c]: in each 128 bits j, rows 4 * i to 4 * i + 3 of the four columns number 4 * j + c.
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_maskz_unpacklo_epi64(0xff, b[i], b[i + 2]);
    a[i + 1] = _mm512_maskz_unpackhi_epi64(0xff, b[i], b[i + 2]);
    a[i + 2] = _mm512_maskz_unpacklo_epi64(0xff, b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_maskz_unpackhi_epi64(0xff, b[i + 1], b[i + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    constexpr int kEven = 0x88, kOdd = 0xdd;  // which 128 bits of both operands
    const __m512i even = shuffle_quarters<kEven>(a[c], a[4 + c]), odd = shuffle_quarters<kOdd>(a[c], a[4 + c]);
    const __m512i even2 = shuffle_quarters<kEven>(a[8 + c], a[12 + c]);
    const __m512i odd2 = shuffle_quarters<kOdd>(a[8 + c], a[12 + c]);
    uint8_t* to = packed + c * kPanelFeatures * 4;
    constexpr int kNext = 4 * kPanelFeatures * 4;
    _mm512_store_si512(to, shuffle_quarters<kEven>(even, even2));
    _mm512_store_si512(to + kNext, shuffle_quarters<kEven>(odd, odd2));
    _mm512_store_si512(to + 2 * kNext, shuffle_quarters<kOdd>(even, even2));
    _mm512_store_si512(to + 3 * kNext, shuffle_quarters<kOdd>(odd, odd2));
  }
}

// packed[k / 4][n][k % 4] = W[n][k] + 128, as vpdpbusd reads it. Row by row of blocks: 16 streams from memory at a
// time.
void pack_panel(const int8_t* weight, int64_t stride, int features, int64_t in_features, uint8_t* packed) {
  for (int n = 0; n < kPanelFeatures; n += 16) {
    for (int64_t k = 0; k < in_features; k += kStep) {
      pack_block(weight + n * stride + k, stride, smaller(16, features - n), first(in_features - k),
                 packed + k * kPanelFeatures + n * 4);
    }
  }
}

// sums[t][n] of kTokens tokens and a packed panel. `in_features` is a multiple of 4.
template <int kTokens>
void packed_tile(const int8_t* values, int64_t in_features, const uint32_t* token_sums, const uint8_t* packed,
                 int32_t* sums) {
  __m512i acc[kTokens][kPanelVectors];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; ++v) acc[t][v] = _mm512_set1_epi32(static_cast<int>(0u - 128 * token_sums[t]));
  }
  for (int64_t k = 0; k < in_features; k += 4) {
    __m512i w[kPanelVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; ++v) w[v] = _mm512_load_si512(packed + k * kPanelFeatures + v * kStep);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const __m512i token = _mm512_set1_epi32(load<int32_t>(values + t * in_features + k));
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) acc[t][v] = _mm512_dpbusd_epi32(acc[t][v], w[v], token);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; ++v) store(sums + t * kPanelFeatures + v * 16, acc[t][v]);
  }
}

// One vector of each row of W and of each token.
template <int kTokens, int kFeatures>
__attribute__((always_inline)) inline void direct_step(const int8_t* values, int64_t in_features, const int8_t* weight,
                                                       int64_t stride, __mmask64 columns,
                                                       __m512i (&acc)[kTokens][kFeatures]) {
  __m512i w[kFeatures];
#pragma GCC unroll 8
  for (int n = 0; n < kFeatures; ++n) w[n] = load_unsigned(weight + n * stride, columns);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    const __m512i token = _mm512_maskz_loadu_epi8(columns, values + t * in_features);
#pragma GCC unroll 8
    for (int n = 0; n < kFeatures; ++n) acc[t][n] = _mm512_dpbusd_epi32(acc[t][n], w[n], token);
  }
}

// The same of kTokens tokens and kFeatures rows of W as they lie.
template <int kTokens, int kFeatures>
void direct_tile(const int8_t* values, int64_t in_features, const uint32_t* token_sums, const int8_t* weight,
                 int64_t stride, int32_t* sums) {
  __m512i acc[kTokens][kFeatures];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int n = 0; n < kFeatures; ++n) acc[t][n] = __m512i{};
  }
  int64_t k = 0;
  for (; k + kStep <= in_features; k += kStep) {
    if (k < kAhead) {
#pragma GCC unroll 8
      for (int n = 0; n < kFeatures; ++n) _mm_prefetch(weight + (kFeatures + n) * stride + k, _MM_HINT_T1);
    }
    direct_step(values + k, in_features, weight + k, stride, kAll, acc);
  }
  if (k < in_features) direct_step(values + k, in_features, weight + k, stride, first(in_features - k), acc);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
    for (int n = 0; n < kFeatures; ++n) {
      sums[t * kPanelFeatures + n] = static_cast<int32_t>(sum_of_lanes(acc[t][n]) - 128 * token_sums[t]);
    }
  }
}

// The tile of `tokens` tokens, 1 to kTokens.
template <int kTokens>
void packed_tile_of(int tokens, const int8_t* values, int64_t in_features, const uint32_t* token_sums,
                    const uint8_t* packed, int32_t* sums) {
  if constexpr (kTokens > 1) {
    if (tokens < kTokens) return packed_tile_of<kTokens - 1>(tokens, values, in_features, token_sums, packed, sums);
  }
  packed_tile<kTokens>(values, in_features, token_sums, packed, sums);
}

template <int kTokens>
void direct_tile_of(int tokens, int features, const int8_t* values, int64_t in_features, const uint32_t* token_sums,
                    const int8_t* weight, int64_t stride, int32_t* sums) {
  if constexpr (kTokens > 1) {
    if (tokens < kTokens) {
      return direct_tile_of<kTokens - 1>(tokens, features, values, in_features, token_sums, weight, stride, sums);
    }
  }
  // With few tokens, more rows at a time: memory is the limit then.
  constexpr int kFeatures = kTokens <= 2 ? 8 : 4;
  int n = 0;
  for (; n + kFeatures <= features; n += kFeatures) {
    direct_tile<kTokens, kFeatures>(values, in_features, token_sums, weight + n * stride, stride, sums + n);
  }
  for (; n < features; ++n) {
    direct_tile<kTokens, 1>(values, in_features, token_sums, weight + n * stride, stride, sums + n);
  }
}

}  // namespace
}  // namespace amber::cpu
