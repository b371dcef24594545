#include "amber/cuda/sparse_gemm/sm100/sparse_gemm.cuh"

namespace amber::cuda {

extern const SparseGemmKernel sm100_bf16_128x256x128_2x1;
const SparseGemmKernel sm100_bf16_128x256x128_2x1 =
    Sm100SparseGemm<cutlass::bfloat16_t, cutlass::bfloat16_t, Tile<128, 256, 128>>::describe(
        "sm100_bf16_128x256x128_2x1");

}  // namespace amber::cuda
