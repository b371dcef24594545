// The steps of the quantisation of one row, one table for each instruction set.
#pragma once

#include <cstdint>

#include "amber/dtype.h"

namespace amber::cpu {

struct QuantizeSteps {
  // v = float(x) * smooth; `smooth` null means 1.
  void (*smooth)(const void* x, DType dtype, const float* smooth, int64_t cols, float* v);
  // The largest `absolute_bits`.
  uint32_t (*absmax_bits)(const float* v, int64_t cols);
  double (*variance)(const float* v, int64_t cols);
  void (*to_int8)(const float* v, float inverse, int64_t cols, int8_t* out);
  // y = float(product) * token_scale * weight_scale + bias; bias [cols] of dtype, or null.
  void (*dequantize)(const int32_t* product, float token_scale, const float* weight_scale, const void* bias,
                     DType dtype, int64_t cols, void* y);
};

extern const QuantizeSteps kQuantizeAvx2;
extern const QuantizeSteps kQuantizeAvx512;

}  // namespace amber::cpu
