#include "amber/cuda/compress/quantize_compress.h"

#include "amber/cuda/compress/kernels/quantize_compress.cuh"

namespace amber::cuda {

cudaError_t quantize_compress(const QuantizeCompressArgs& args, cudaStream_t stream) {
  return launch_quantize_compress<StoredRows>(args, stream);
}

}  // namespace amber::cuda
