#include "amber/cuda/compress/kernels/prune_compress.cuh"
#include "amber/cuda/compress/sources/silu_mul.h"
#include "amber/cuda/compress/sources/silu_mul_compress.h"

namespace amber::cuda {

cudaError_t silu_mul_prune_compress(const PruneCompressArgs& args, cudaStream_t stream) {
  return launch_prune_compress<SiluMulRows>(args, stream);
}

}  // namespace amber::cuda
