// The vectorised steps of the quantisation, written once for every instruction set (see simd.h).
#pragma once

#include "amber/cpu/quantize/dequantize_simd.h"
#include "amber/cpu/quantize/quantize_isa.h"
#include "amber/cpu/simd.h"
#include "amber/quantize.h"

namespace amber::cpu {
namespace {

template <typename T>
inline void smooth_row(const T* x, const float* smooth, int64_t cols, float* v) {
  int64_t k = 0;
  for (; k + kLanes <= cols; k += kLanes) {
    const VecF value = load_float(x + k);
    store(v + k, smooth ? value * load_float(smooth + k) : value);
  }
  for (; k < cols; ++k) v[k] = smooth ? to_float(x[k]) * smooth[k] : to_float(x[k]);
}

void simd_smooth(const void* x, DType dtype, const float* smooth, int64_t cols, float* v) {
  switch (dtype) {
    case DType::kFloat32:
      return smooth_row(static_cast<const float*>(x), smooth, cols, v);
    case DType::kFloat16:
      return smooth_row(static_cast<const Float16*>(x), smooth, cols, v);
    case DType::kBFloat16:
      return smooth_row(static_cast<const BFloat16*>(x), smooth, cols, v);
  }
}

uint32_t simd_absmax_bits(const float* v, int64_t cols) {
  VecI largest = {};
  int64_t k = 0;
  for (; k + kLanes <= cols; k += kLanes) {
    const VecI bits = load<VecI>(v + k) & 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  uint32_t result = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto bits = static_cast<uint32_t>(largest[lane]);
    result = bits > result ? bits : result;
  }
  for (; k < cols; ++k) {
    const uint32_t bits = absolute_bits(v[k]);
    result = bits > result ? bits : result;
  }
  return result;
}

double simd_variance(const float* v, int64_t cols) { return vector_variance(v, cols); }

void simd_to_int8(const float* v, float inverse, int64_t cols, int8_t* out) {
  int64_t k = 0;
  for (; k + kLanes <= cols; k += kLanes) {
    const VecI units = as_int(load_float(v + k) * inverse + 0x1.8p23f) - 0x4b400000;
    store(out + k, __builtin_convertvector(units, VecI8));
  }
  for (; k < cols; ++k) out[k] = to_int8(v[k], inverse);
}

}  // namespace
}  // namespace amber::cpu
