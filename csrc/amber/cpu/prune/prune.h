// N:M selection on the CPU: masks and pruned copies of X [rows, cols].
#pragma once

#include <cstdint>

#include "amber/args.h"
#include "amber/cpu/isa.h"
#include "amber/status.h"

namespace amber::cpu {

// Checks everything but the values of `scale`.
Status validate(const PruneArgs& args);

// Index of the first channel scale that is not finite and > 0, or -1.
int64_t first_invalid_scale(const float* scale, int64_t cols);

// Processes rows [row_begin, row_end). The caller validates once, then spreads rows over its own
// threads.
void prune_rows(const PruneArgs& args, int64_t row_begin, int64_t row_end);

// `prune_rows` uses `best_isa()`; tests try them all.
void prune_rows_with(Isa isa, const PruneArgs& args, int64_t row_begin, int64_t row_end);

}  // namespace amber::cpu
