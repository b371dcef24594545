// N:M selection on the CPU: masks and pruned copies of X [rows, cols].
#pragma once

#include <cstdint>

#include "amber/dtype.h"
#include "amber/pattern.h"
#include "amber/status.h"

namespace amber::cpu {

enum class Rescale {
  kNone,
  // Survivors of a row are multiplied by sqrt(var(row) / var(pruned row)), population variances; by
  // 1 where either variance is 0 or the ratio is not finite.
  kVariance,
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

// Checks everything but the values of `scale`.
Status validate(const PruneArgs& args);

// Index of the first channel scale that is not finite and > 0, or -1.
int64_t first_invalid_scale(const float* scale, int64_t cols);

// Processes rows [row_begin, row_end). The caller validates once, then spreads rows over its own
// threads.
void prune_rows(const PruneArgs& args, int64_t row_begin, int64_t row_end);

// Instruction sets, weakest first. `prune_rows` uses `best_isa()`; tests try them all.
enum class Isa { kPortable, kAvx2, kAvx512 };
Isa best_isa();
const char* isa_name(Isa isa);
void prune_rows_with(Isa isa, const PruneArgs& args, int64_t row_begin, int64_t row_end);

}  // namespace amber::cpu
