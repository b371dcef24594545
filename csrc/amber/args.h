// The arguments of the kernels that CPU and CUDA both have; on CUDA the pointers are the device's.
#pragma once

#include <cstdint>

#include "amber/dtype.h"
#include "amber/pattern.h"
#include "amber/quantize.h"

namespace amber {

enum class Rescale {
  kNone,
  kVariance,  // survivors of a row are multiplied by its rescale_factor (rescale.h)
};

struct PruneArgs {
  const void* x;       // [rows, cols], contiguous
  const float* scale;  // [cols] channel scales, finite and > 0; null means 1 everywhere
  void* pruned;        // [rows, cols] of x's dtype, or null
  uint8_t* mask;       // [rows, cols] of 0 / 1, or null
  int64_t rows;
  int64_t cols;
  Pattern pattern;
  DType dtype;
  Rescale rescale;
};

struct QuantizeArgs {
  const void* x;        // [rows, cols], contiguous
  const float* smooth;  // [cols] factors that x is multiplied with, in fp32; null means 1 everywhere
  const float* scale;   // [cols] channel scales of the selection; null means 1 everywhere
  void* values;         // [rows, cols], 1 byte each
  float* token_scale;   // [rows]
  int64_t rows;
  int64_t cols;
  Pattern pattern;  // N == M keeps everything
  DType dtype;
  Rescale rescale;  // kVariance multiplies the token's scale
  QuantizedType type;
};

struct DequantizeArgs {
  const int32_t* product;     // [rows, cols], exact
  const float* token_scale;   // [rows]
  const float* weight_scale;  // [cols]
  const void* bias;           // [cols] of dtype, or null
  void* y;                    // [rows, cols] of dtype
  int64_t rows;
  int64_t cols;
  DType dtype;
};

}  // namespace amber
