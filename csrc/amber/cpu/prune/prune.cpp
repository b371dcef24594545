#include "amber/cpu/prune/prune.h"

#include "amber/cpu/prune/prune_isa.h"
#include "amber/cpu/prune/prune_row.h"
#include "amber/cpu/subnormals.h"
#include "amber/rescale.h"

namespace amber::cpu {
namespace {

template <typename T>
void prune_rows_scalar(const PruneArgs& args, int64_t row_begin, int64_t row_end) {
  const int m = args.pattern.m;
  for (int64_t t = row_begin; t < row_end; ++t) {
    const T* x = static_cast<const T*>(args.x) + t * args.cols;
    T* pruned = args.pruned ? static_cast<T*>(args.pruned) + t * args.cols : nullptr;
    uint8_t* mask = args.mask ? args.mask + t * args.cols : nullptr;
    for (int64_t k = 0; k < args.cols; k += m) {
      const uint32_t keep = select_any(x + k, args.scale ? args.scale + k : nullptr, args.pattern);
      write_group(x + k, keep, m, pruned ? pruned + k : nullptr, mask ? mask + k : nullptr);
    }
    if (pruned && args.rescale == Rescale::kVariance) {
      const float factor = rescale_factor(population_variance(x, args.cols), population_variance(pruned, args.cols));
      for (int64_t k = 0; k < args.cols; ++k) {
        pruned[k] = from_float<T>(to_float(pruned[k]) * factor);
      }
    }
  }
}

void prune_rows_portable(const PruneArgs& args, int64_t row_begin, int64_t row_end) {
  switch (args.dtype) {
    case DType::kFloat32:
      return prune_rows_scalar<float>(args, row_begin, row_end);
    case DType::kFloat16:
      return prune_rows_scalar<Float16>(args, row_begin, row_end);
    case DType::kBFloat16:
      return prune_rows_scalar<BFloat16>(args, row_begin, row_end);
  }
}

}  // namespace

Status validate(const PruneArgs& args) {
  if (!args.pattern.valid()) return Status::kInvalidPattern;
  if (args.rows < 0 || args.cols < 0) return Status::kNegativeSize;
  if (args.cols % args.pattern.m != 0) return Status::kColsNotMultipleOfM;
  const bool empty = args.rows == 0 || args.cols == 0;
  if (!empty && (!args.x || (!args.pruned && !args.mask))) return Status::kNullPointer;
  return Status::kOk;
}

int64_t first_invalid_scale(const float* scale, int64_t cols) {
  for (int64_t k = 0; k < cols; ++k) {
    // By its bits: a subnormal scale is > 0, also where the thread takes it for 0.
    const uint32_t bits = float_bits(scale[k]);
    if (bits == 0 || bits >= kInfKey) return k;
  }
  return -1;
}

void prune_rows_with([[maybe_unused]] Isa isa, const PruneArgs& args, int64_t row_begin, int64_t row_end) {
  const KeepSubnormals keep_subnormals;
#if defined(AMBER_X86)
  if (isa == Isa::kAvx512 && prune_rows_avx512(args, row_begin, row_end)) return;
  if (isa == Isa::kAvx2 && prune_rows_avx2(args, row_begin, row_end)) return;
#endif
  prune_rows_portable(args, row_begin, row_end);
}

void prune_rows(const PruneArgs& args, int64_t row_begin, int64_t row_end) {
  prune_rows_with(best_isa(), args, row_begin, row_end);
}

}  // namespace amber::cpu
