// The fused step before an 8-bit sparse GEMM: score, pick 2 of 4, scale, quantise and compress, in one
// pass over X.
#pragma once

#include <cuda_runtime_api.h>

#include "amber/cuda/compress/quantize_compress_args.h"

namespace amber::cuda {

// Launches on `stream`, allocates nothing, does not synchronise. Writes every byte of E, padding
// included, and every token scale.
cudaError_t quantize_compress(const QuantizeCompressArgs& args, cudaStream_t stream);

}  // namespace amber::cuda
