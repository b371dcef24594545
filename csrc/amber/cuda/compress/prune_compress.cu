#include "amber/cuda/compress/prune_compress.h"

#include "amber/cuda/compress/kernels/prune_compress.cuh"

namespace amber::cuda {

cudaError_t prune_compress(const PruneCompressArgs& args, cudaStream_t stream) {
  return launch_prune_compress<StoredRows>(args, stream);
}

}  // namespace amber::cuda
