// prune_compress and quantize_compress of rows silu(x) * up, which are never stored. `up` lies as `x` does.
#pragma once

#include "amber/cuda/compress/prune_compress.h"
#include "amber/cuda/compress/quantize_compress.h"

namespace amber::cuda {

cudaError_t silu_mul_prune_compress(const PruneCompressArgs& args, cudaStream_t stream);

cudaError_t silu_mul_quantize_compress(const QuantizeCompressArgs& args, cudaStream_t stream);

}  // namespace amber::cuda
