#include "amber/cuda/compress/kernels/quantize_compress.cuh"
#include "amber/cuda/compress/sources/silu_mul.h"
#include "amber/cuda/compress/sources/silu_mul_compress.h"

namespace amber::cuda {

cudaError_t silu_mul_quantize_compress(const QuantizeCompressArgs& args, cudaStream_t stream) {
  return launch_quantize_compress<SiluMulRows>(args, stream);
}

}  // namespace amber::cuda
