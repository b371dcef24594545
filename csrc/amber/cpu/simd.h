// Vector types and conversions, written with the compiler's vector extensions. Each instruction set
// includes this in files of its own that are compiled with that set's flags and define AMBER_LANES.
#pragma once

#include <immintrin.h>

#include "amber/dtype.h"

namespace amber::cpu {
namespace {

constexpr int kLanes = AMBER_LANES;

typedef float VecF __attribute__((vector_size(4 * kLanes)));
typedef int32_t VecI __attribute__((vector_size(4 * kLanes)));
typedef uint16_t VecU16 __attribute__((vector_size(2 * kLanes)));
typedef int16_t VecI16 __attribute__((vector_size(2 * kLanes)));
typedef int8_t VecI8 __attribute__((vector_size(kLanes)));
typedef double VecD __attribute__((vector_size(4 * kLanes)));  // half as many lanes

template <typename To, typename From>
inline To load(const From* from) {
  To vec;
  std::memcpy(&vec, from, sizeof vec);
  return vec;
}

template <typename Vec, typename To>
inline void store(To* to, Vec vec) {
  std::memcpy(to, &vec, sizeof vec);
}

inline VecI lane_numbers() {
#if AMBER_LANES == 16
  return VecI{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
  return VecI{0, 1, 2, 3, 4, 5, 6, 7};
#endif
}

// Lane l takes from[l * Stride].
template <int Stride>
inline VecI load_strided(const int32_t* from) {
#if AMBER_LANES == 16
  // The masked form: GCC 12 warns of the other's undefined source.
  return reinterpret_cast<VecI>(
      _mm512_mask_i32gather_epi32(__m512i{}, 0xffff, reinterpret_cast<__m512i>(lane_numbers() * Stride), from, 4));
#else
  return reinterpret_cast<VecI>(_mm256_i32gather_epi32(from, reinterpret_cast<__m256i>(lane_numbers() * Stride), 4));
#endif
}

inline VecF as_float(VecI bits) { return reinterpret_cast<VecF>(bits); }
inline VecI as_int(VecF value) { return reinterpret_cast<VecI>(value); }

inline VecF load_float(const float* x) { return load<VecF>(x); }

inline VecF load_float(const BFloat16* x) { return as_float(__builtin_convertvector(load<VecU16>(x), VecI) << 16); }

inline VecF load_float(const Float16* x) {
#if AMBER_LANES == 16
  return _mm512_maskz_cvtph_ps(0xffff, load<__m256i>(x));
#else
  return _mm256_cvtph_ps(load<__m128i>(x));
#endif
}

inline VecU16 round_to(VecF value, const BFloat16*) {
  const VecI bits = as_int(value);
  const VecI rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const VecI quiet_nan = (bits >> 16) | 0x0040;
  const VecI is_nan = (bits & 0x7fffffff) > 0x7f800000;
  return __builtin_convertvector((is_nan & quiet_nan) | (~is_nan & rounded), VecU16);
}

inline VecU16 round_to(VecF value, const Float16*) {
#if AMBER_LANES == 16
  return reinterpret_cast<VecU16>(_mm512_maskz_cvtps_ph(0xffff, value, _MM_FROUND_TO_NEAREST_INT));
#else
  return reinterpret_cast<VecU16>(_mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
#endif
}

// The lower and the upper half of the lanes in fp64. GCC's generic conversion goes lane by lane.
inline VecD lower_double(VecF v) {
#if AMBER_LANES == 16
  return _mm512_maskz_cvtps_pd(0xff, _mm512_maskz_extractf32x8_ps(0xff, v, 0));
#else
  return _mm256_cvtps_pd(_mm256_castps256_ps128(v));
#endif
}

inline VecD upper_double(VecF v) {
#if AMBER_LANES == 16
  return _mm512_maskz_cvtps_pd(0xff, _mm512_maskz_extractf32x8_ps(0xff, v, 1));
#else
  return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
#endif
}

inline double total(VecD v) {
  double sum = 0.0;
  for (int lane = 0; lane < kLanes / 2; ++lane) sum += v[lane];
  return sum;
}

// Population variance of a row.
template <typename T>
inline double vector_variance(const T* row, int64_t cols) {
  VecD lower = {}, upper = {};
  int64_t k = 0;
  for (; k + kLanes <= cols; k += kLanes) {
    const VecF x = load_float(row + k);
    lower += lower_double(x);
    upper += upper_double(x);
  }
  double sum = total(lower + upper);
  for (; k < cols; ++k) sum += to_float(row[k]);
  const double mean = sum / static_cast<double>(cols);

  lower = upper = VecD{};
  for (k = 0; k + kLanes <= cols; k += kLanes) {
    const VecF x = load_float(row + k);
    const VecD low = lower_double(x) - mean, high = upper_double(x) - mean;
    lower += low * low;
    upper += high * high;
  }
  double squares = total(lower + upper);
  for (; k < cols; ++k) squares += (to_float(row[k]) - mean) * (to_float(row[k]) - mean);
  return squares / static_cast<double>(cols);
}

}  // namespace
}  // namespace amber::cpu
