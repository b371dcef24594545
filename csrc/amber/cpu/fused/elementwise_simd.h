// The vectorised steps, written once for every instruction set (see simd.h).
#pragma once

#include "amber/cpu/fused/elementwise_isa.h"
#include "amber/cpu/simd.h"

namespace amber::cpu {
namespace {

inline void store_rounded(float* to, VecF value) { store(to, value); }

template <typename T>
inline void store_rounded(T* to, VecF value) {
  store(to, round_to(value, to));
}

template <typename T>
inline void multiply(const T* a, const T* b, int64_t count, T* y) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store_rounded(y + i, load_float(a + i) * load_float(b + i));
  for (; i < count; ++i) y[i] = from_float<T>(to_float(a[i]) * to_float(b[i]));
}

void simd_multiply(const void* a, const void* b, DType dtype, int64_t count, void* y) {
  with_element(dtype, [&](auto element) {
    using T = decltype(element);
    multiply(static_cast<const T*>(a), static_cast<const T*>(b), count, static_cast<T*>(y));
  });
}

}  // namespace
}  // namespace amber::cpu
