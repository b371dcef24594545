#include "amber/cuda/sparse_gemm/sm80/sparse_gemm_8bit.cuh"

namespace amber::cuda {

extern const SparseGemmKernel sm80_s8_bf16_128x128x128;
const SparseGemmKernel sm80_s8_bf16_128x128x128 =
    Sm80SparseGemm8bit<cutlass::bfloat16_t, cutlass::gemm::GemmShape<128, 128, 128>,
                       cutlass::gemm::GemmShape<64, 64, 128>, 3>::describe("sm80_s8_bf16_128x128x128");

}  // namespace amber::cuda
