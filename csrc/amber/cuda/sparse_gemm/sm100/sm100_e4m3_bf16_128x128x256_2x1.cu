#include "amber/cuda/sparse_gemm/sm100/sparse_gemm.cuh"

namespace amber::cuda {

extern const SparseGemmKernel sm100_e4m3_bf16_128x128x256_2x1;
const SparseGemmKernel sm100_e4m3_bf16_128x128x256_2x1 =
    Sm100SparseGemm<cutlass::float_e4m3_t, cutlass::bfloat16_t, Tile<128, 128, 256>>::describe(
        "sm100_e4m3_bf16_128x128x256_2x1");

}  // namespace amber::cuda
