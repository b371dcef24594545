#include "amber/cuda/sparse_gemm/sm90/sparse_gemm.cuh"

namespace amber::cuda {

extern const SparseGemmKernel sm90_bf16_128x256x128_1x2_cooperative;
const SparseGemmKernel sm90_bf16_128x256x128_1x2_cooperative =
    Sm90SparseGemm<cutlass::bfloat16_t, Tile<128, 256, 128>, Tile<1, 2, 1>, Cooperative, CooperativeEpilogue>::describe(
        "sm90_bf16_128x256x128_1x2_cooperative");

}  // namespace amber::cuda
