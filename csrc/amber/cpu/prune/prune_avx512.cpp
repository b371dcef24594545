#define AMBER_LANES 16
#include "amber/cpu/prune/prune_simd.h"

#include "amber/cpu/prune/prune_isa.h"

namespace amber::cpu {

bool prune_rows_avx512(const PruneArgs& args, int64_t row_begin, int64_t row_end) {
  return simd_prune_rows(args, row_begin, row_end);
}

}  // namespace amber::cpu
