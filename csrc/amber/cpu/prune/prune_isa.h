// Entry points of the vectorised kernels; each returns false for an M that it does not cover.
#pragma once

#include "amber/cpu/prune/prune.h"

namespace amber::cpu {

bool prune_rows_avx2(const PruneArgs& args, int64_t row_begin, int64_t row_end);
bool prune_rows_avx512(const PruneArgs& args, int64_t row_begin, int64_t row_end);

}  // namespace amber::cpu
