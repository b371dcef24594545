// Per-token 8-bit quantisation before a dense 8-bit product, and the scales after it.
#pragma once

#include <cuda_runtime_api.h>

#include "amber/args.h"

namespace amber::cuda {

inline constexpr int kQuantizeVector = 8;  // columns a thread takes at a time; K and N are multiples of it

// As cpu::quantize_rows, but of rows that are pruned already: `args.pattern` and `args.scale` are ignored.
// With kVariance, `unpruned` is the token before pruning; else it may be null.
cudaError_t quantize_pruned(const QuantizeArgs& args, const void* unpruned, cudaStream_t stream);

// As cpu::dequantize_rows.
cudaError_t dequantize(const DequantizeArgs& args, cudaStream_t stream);

}  // namespace amber::cuda
