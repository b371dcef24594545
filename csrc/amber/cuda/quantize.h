// Per-token 8-bit quantisation before a dense 8-bit product, and the scales after it.
#pragma once

#include <cuda_runtime_api.h>

#include "amber/cpu/quantize.h"

namespace amber::cuda {

// As cpu::quantize_rows with device pointers, but of rows that are pruned already: `args.pattern` and
// `args.scale` are ignored. With kVariance, `unpruned` is the token before pruning; else it may be null.
cudaError_t quantize_pruned(const cpu::QuantizeArgs& args, const void* unpruned, cudaStream_t stream);

// As cpu::dequantize_rows with device pointers.
cudaError_t dequantize(const cpu::DequantizeArgs& args, cudaStream_t stream);

}  // namespace amber::cuda
