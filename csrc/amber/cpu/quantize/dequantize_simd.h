// The scales of int32 sums, written once for every instruction set (see simd.h).
#pragma once

#include <type_traits>

#include "amber/cpu/simd.h"

namespace amber::cpu {
namespace {

template <typename T>
inline void dequantize_row(const int32_t* product, float token_scale, const float* weight_scale, const T* bias,
                           int64_t cols, T* y) {
  int64_t n = 0;
  for (; n + kLanes <= cols; n += kLanes) {
    VecF value = __builtin_convertvector(load<VecI>(product + n), VecF) * token_scale * load_float(weight_scale + n);
    if (bias) value += load_float(bias + n);
    if constexpr (std::is_same_v<T, float>) {
      store(y + n, value);
    } else {
      store(y + n, round_to(value, y));
    }
  }
  for (; n < cols; ++n) {
    const float value = static_cast<float>(product[n]) * token_scale * weight_scale[n];
    y[n] = from_float<T>(bias ? value + to_float(bias[n]) : value);
  }
}

// See QuantizeSteps.
inline void simd_dequantize(const int32_t* product, float token_scale, const float* weight_scale, const void* bias,
                            DType dtype, int64_t cols, void* y) {
  switch (dtype) {
    case DType::kFloat32:
      return dequantize_row(product, token_scale, weight_scale, static_cast<const float*>(bias), cols,
                            static_cast<float*>(y));
    case DType::kFloat16:
      return dequantize_row(product, token_scale, weight_scale, static_cast<const Float16*>(bias), cols,
                            static_cast<Float16*>(y));
    case DType::kBFloat16:
      return dequantize_row(product, token_scale, weight_scale, static_cast<const BFloat16*>(bias), cols,
                            static_cast<BFloat16*>(y));
  }
}

}  // namespace
}  // namespace amber::cpu
