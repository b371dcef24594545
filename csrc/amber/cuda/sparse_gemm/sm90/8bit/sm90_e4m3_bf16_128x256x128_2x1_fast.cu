#include "amber/cuda/sparse_gemm/sm90/sparse_gemm.cuh"

namespace amber::cuda {

extern const SparseGemmKernel sm90_e4m3_bf16_128x256x128_2x1_fast;
const SparseGemmKernel sm90_e4m3_bf16_128x256x128_2x1_fast =
    Sm90SparseGemm8bit<cutlass::float_e4m3_t, cutlass::bfloat16_t, Tile<128, 256, 128>, Tile<2, 1, 1>, CooperativeFast,
                       CooperativeEpilogue>::describe("sm90_e4m3_bf16_128x256x128_2x1_fast");

}  // namespace amber::cuda
