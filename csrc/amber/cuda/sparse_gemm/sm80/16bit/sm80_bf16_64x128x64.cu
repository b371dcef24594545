#include "amber/cuda/sparse_gemm/sm80/sparse_gemm_16bit.cuh"

namespace amber::cuda {

extern const SparseGemmKernel sm80_bf16_64x128x64;
const SparseGemmKernel sm80_bf16_64x128x64 =
    Sm80SparseGemm<cutlass::bfloat16_t, cutlass::gemm::GemmShape<64, 128, 64>, cutlass::gemm::GemmShape<64, 32, 64>,
                   4>::describe("sm80_bf16_64x128x64");

}  // namespace amber::cuda
