#include "amber/cuda/sparse_gemm/sm80/sparse_gemm_8bit.cuh"

namespace amber::cuda {

extern const SparseGemmKernel sm80_s8_fp16_64x128x128;
const SparseGemmKernel sm80_s8_fp16_64x128x128 =
    Sm80SparseGemm8bit<cutlass::half_t, cutlass::gemm::GemmShape<64, 128, 128>, cutlass::gemm::GemmShape<64, 32, 128>,
                       4>::describe("sm80_s8_fp16_64x128x128");

}  // namespace amber::cuda
