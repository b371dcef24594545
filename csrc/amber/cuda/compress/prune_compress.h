// The fused step before a sparse GEMM: score, pick 2 of 4, compress, in one pass over X.
#pragma once

#include <cuda_runtime_api.h>

#include "amber/cuda/compress/prune_compress_args.h"

namespace amber::cuda {

// Launches on `stream`, allocates nothing, does not synchronise. Writes every byte of E, padding
// included.
cudaError_t prune_compress(const PruneCompressArgs& args, cudaStream_t stream);

}  // namespace amber::cuda
