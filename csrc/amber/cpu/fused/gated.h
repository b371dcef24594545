// The gated activation of an MLP, silu(gate) * up, pruned (and quantised) as it is made: the product is never stored.
#pragma once

#include <cstdint>

#include "amber/args.h"
#include "amber/cpu/isa.h"

namespace amber::cpu {

// Of the dtype and shape of `then`, contiguous. `silu` is silu(gate) in that dtype: torch's own, since no other is bit
// for bit the same.
struct GatedRows {
  const void* silu;
  const void* up;
};

// `prune_rows` and `quantize_rows` of the product of both, rounded to its dtype; `then.x` is ignored. Rows
// [row_begin, row_end); the caller validates `then` once, with `silu` as x, then spreads rows over its own threads.
void prune_gated_rows(const GatedRows& of, const PruneArgs& then, int64_t row_begin, int64_t row_end);
void quantize_gated_rows(const GatedRows& of, const QuantizeArgs& then, int64_t row_begin, int64_t row_end);

// With an instruction set; tests try them all.
void prune_gated_rows_with(Isa isa, const GatedRows& of, const PruneArgs& then, int64_t row_begin, int64_t row_end);
void quantize_gated_rows_with(Isa isa, const GatedRows& of, const QuantizeArgs& then, int64_t row_begin,
                              int64_t row_end);

}  // namespace amber::cpu
