// mma.sp of e4m3 with ordered metadata, as ours is. CUTLASS 4.2 has the form without (arch/mma_sparse_sm89.h), of which
// ptxas says that newer architectures run it much slower.
#pragma once

#include "cutlass/arch/mma.h"

namespace amber::cuda {

struct OrderedMultiplyAdd {};  // CUTLASS chooses the instruction by such a tag

}  // namespace amber::cuda

namespace cutlass::arch {

template <>
struct SparseMma<gemm::GemmShape<16, 8, 64>, 32, float_e4m3_t, layout::RowMajor, float_e4m3_t, layout::ColumnMajor,
                 float, layout::RowMajor, amber::cuda::OrderedMultiplyAdd, SPFormatType::Thread>
    : SparseMma<gemm::GemmShape<16, 8, 64>, 32, float_e4m3_t, layout::RowMajor, float_e4m3_t, layout::ColumnMajor,
                float, layout::RowMajor, OpMultiplyAdd, SPFormatType::Thread> {
  using Operator = amber::cuda::OrderedMultiplyAdd;

  CUTLASS_DEVICE void operator()(FragmentC& d, const FragmentA& a, const FragmentB& b, const FragmentC& c,
                                 const uint32_t& e, int) const {
#if defined(CUTLASS_ARCH_SPARSE_MMA_F32_SM89_ENABLED)
    const auto* wa = reinterpret_cast<const uint32_t*>(&a);
    const auto* wb = reinterpret_cast<const uint32_t*>(&b);
    asm volatile(
        "mma.sp::ordered_metadata.sync.aligned.m16n8k64.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9,%10,%11}, {%12,%13,%14,%15}, %16, 0x0;\n"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(wa[0]), "r"(wa[1]), "r"(wa[2]), "r"(wa[3]), "r"(wb[0]), "r"(wb[1]), "r"(wb[2]), "r"(wb[3]), "f"(c[0]),
          "f"(c[1]), "f"(c[2]), "f"(c[3]), "r"(e));
#endif
  }
};

}  // namespace cutlass::arch
