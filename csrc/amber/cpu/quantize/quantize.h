// Per-token 8-bit quantisation of X [rows, cols] on the CPU, pruned to N:M first.
#pragma once

#include <cstdint>

#include "amber/args.h"
#include "amber/cpu/isa.h"
#include "amber/status.h"

namespace amber::cpu {

Status validate(const QuantizeArgs& args);

// Processes rows [row_begin, row_end). The caller validates once, then spreads rows over its threads.
void quantize_rows(const QuantizeArgs& args, int64_t row_begin, int64_t row_end);
void quantize_rows_with(Isa isa, const QuantizeArgs& args, int64_t row_begin, int64_t row_end);

// y = float(product) * token_scale * weight_scale + bias, each step rounded to fp32.
void dequantize_rows(const DequantizeArgs& args, int64_t row_begin, int64_t row_end);
void dequantize_rows_with(Isa isa, const DequantizeArgs& args, int64_t row_begin, int64_t row_end);

}  // namespace amber::cpu
