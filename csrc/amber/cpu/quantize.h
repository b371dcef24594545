// Per-token 8-bit quantisation of X [rows, cols] on the CPU, pruned to N:M first.
#pragma once

#include <cstdint>

#include "amber/cpu/prune.h"
#include "amber/quantize.h"

namespace amber::cpu {

struct QuantizeArgs {
  const void* x;         // [rows, cols], contiguous
  const float* smooth;   // [cols] factors that x is multiplied with, in fp32; null means 1 everywhere
  const float* scale;    // [cols] channel scales of the selection; null means 1 everywhere
  void* values;          // [rows, cols], 1 byte each
  float* token_scale;    // [rows]
  int64_t rows;
  int64_t cols;
  Pattern pattern;       // N == M keeps everything
  DType dtype;
  Rescale rescale;       // kVariance multiplies the token's scale
  QuantizedType type;
};

Status validate(const QuantizeArgs& args);

// Processes rows [row_begin, row_end). The caller validates once, then spreads rows over its threads.
void quantize_rows(const QuantizeArgs& args, int64_t row_begin, int64_t row_end);
void quantize_rows_with(Isa isa, const QuantizeArgs& args, int64_t row_begin, int64_t row_end);

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

// y = float(product) * token_scale * weight_scale + bias, each step rounded to fp32.
void dequantize_rows(const DequantizeArgs& args, int64_t row_begin, int64_t row_end);

}  // namespace amber::cpu
