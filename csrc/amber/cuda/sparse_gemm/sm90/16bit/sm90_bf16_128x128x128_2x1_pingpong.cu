#include "amber/cuda/sparse_gemm/sm90/sparse_gemm.cuh"

namespace amber::cuda {

extern const SparseGemmKernel sm90_bf16_128x128x128_2x1_pingpong;
const SparseGemmKernel sm90_bf16_128x128x128_2x1_pingpong =
    Sm90SparseGemm<cutlass::bfloat16_t, Tile<128, 128, 128>, Tile<2, 1, 1>, Pingpong, PingpongEpilogue>::describe(
        "sm90_bf16_128x128x128_2x1_pingpong");

}  // namespace amber::cuda
