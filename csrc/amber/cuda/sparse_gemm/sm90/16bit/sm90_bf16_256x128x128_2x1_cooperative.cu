#include "amber/cuda/sparse_gemm/sm90/sparse_gemm.cuh"

namespace amber::cuda {

extern const SparseGemmKernel sm90_bf16_256x128x128_2x1_cooperative;
const SparseGemmKernel sm90_bf16_256x128x128_2x1_cooperative =
    Sm90SparseGemm<cutlass::bfloat16_t, Tile<256, 128, 128>, Tile<2, 1, 1>, Cooperative, CooperativeEpilogue>::describe(
        "sm90_bf16_256x128x128_2x1_cooperative");

}  // namespace amber::cuda
