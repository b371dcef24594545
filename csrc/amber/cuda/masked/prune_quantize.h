// Per-token 8-bit quantisation of what a pattern keeps, before a dense 8-bit product.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "amber/args.h"

namespace amber::cuda {

struct PruneQuantizePlan {
  std::string refusal;   // one line; empty when the problem runs
  int64_t pruned_bytes;  // of scratch; 0 where there is nothing to prune
};

// Follows from the sizes, the pattern and the dtype; pointers are not looked at.
PruneQuantizePlan plan_prune_quantize(const QuantizeArgs& args);

// As cpu::quantize_rows; `pruned` is the plan's scratch. Launches on `stream`, allocates nothing, does not
// synchronise. Pointers are 16-byte aligned. Returns one line that names the step which failed, or an empty one.
std::string run_prune_quantize(const QuantizeArgs& args, void* pruned, cudaStream_t stream);

}  // namespace amber::cuda
