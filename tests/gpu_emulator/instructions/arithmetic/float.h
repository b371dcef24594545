// Minima, maxima and saturation of PTX's floating point.
#pragma once

#include <cmath>
#include <limits>

#include "ptx/numeric.h"

namespace emu {

// min and max of PTX: of a number and NaN, the number; +0 is greater than -0.
template <typename T>
T min_number(T a, T b) {
  if (a != a) return canonical(b);
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? a : b;
  return a < b ? a : b;
}
template <typename T>
T max_number(T a, T b) {
  if (a != a) return canonical(b);
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? b : a;
  return a > b ? a : b;
}
template <typename T>
T min_nan(T a, T b) {
  return a != a || b != b ? canonical(std::numeric_limits<T>::quiet_NaN()) : min_number(a, b);
}
template <typename T>
T max_nan(T a, T b) {
  return a != a || b != b ? canonical(std::numeric_limits<T>::quiet_NaN()) : max_number(a, b);
}

inline float saturate(float x) { return x != x ? 0.0f : x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x; }
inline float flush(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

}  // namespace emu
