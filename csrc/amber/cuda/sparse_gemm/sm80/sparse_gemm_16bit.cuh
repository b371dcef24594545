// SM80, and what has its instructions (8.x, 12.x): mma.sp through CUTLASS' SparseGemm. The bias is the source operand
// C, read with a row stride of 0.
#pragma once

#include "amber/cuda/sparse_gemm/descriptor.h"
#include "cutlass/epilogue/thread/linear_combination.h"
#include "cutlass/gemm/device/gemm_sparse.h"

namespace amber::cuda {

template <typename Element, typename ThreadblockShape, typename WarpShape, int Stages>
struct Sm80SparseGemm {
  static constexpr int kAlignment = 128 / cutlass::sizeof_bits<Element>::value;
  using RowMajor = cutlass::layout::RowMajor;
  using ColumnMajor = cutlass::layout::ColumnMajor;
  using Gemm =
      cutlass::gemm::device::SparseGemm<Element, RowMajor, Element, ColumnMajor, Element, RowMajor, float,
                                        cutlass::arch::OpClassTensorOp, cutlass::arch::Sm80, ThreadblockShape,
                                        WarpShape, cutlass::gemm::GemmShape<16, 8, 32>,
                                        cutlass::epilogue::thread::LinearCombination<Element, kAlignment, float, float>,
                                        cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<8>, Stages>;

  static typename Gemm::Arguments arguments(const SparseGemmArgs& args) {
    const int n = static_cast<int>(args.out_features);
    const int k = static_cast<int>(args.in_features);
    // E interleaves rows in groups of 32, so the kernel must see the padded rows.
    const int t = static_cast<int>(metadata_rows(MetadataLayout::kSm80_16bit, args.rows));
    using E = typename Gemm::ElementE;
    auto* metadata = reinterpret_cast<E*>(const_cast<uint8_t*>(args.metadata));
    const auto layout_e = Gemm::LayoutE::packed({t, k / Gemm::kSparse / Gemm::kElementsPerElementE});
    auto* output = static_cast<Element*>(args.output);
    auto* values = static_cast<Element*>(const_cast<void*>(args.values));
    auto* weight = static_cast<Element*>(const_cast<void*>(args.weight));
    auto* bias = static_cast<Element*>(const_cast<void*>(args.bias));
    return {{t, n, k},
            {values, RowMajor(k / Gemm::kSparse)},
            {weight, ColumnMajor(k)},
            {bias ? bias : output, RowMajor(bias ? 0 : n)},
            {output, RowMajor(n)},
            {metadata, layout_e},
            {1.0f, bias ? 1.0f : 0.0f}};
  }

  static size_t workspace_bytes(const SparseGemmArgs& args) { return Gemm::get_workspace_size(arguments(args)); }

  static GemmStatus run(const SparseGemmArgs& args, void* workspace, cudaStream_t stream) {
    auto arguments = Sm80SparseGemm::arguments(args);
    Gemm gemm;
    if (gemm.can_implement(arguments) != cutlass::Status::kSuccess) return GemmStatus::kUnsupportedShape;
    if (gemm.initialize(arguments, workspace, stream) != cutlass::Status::kSuccess ||
        gemm.run(stream) != cutlass::Status::kSuccess) {
      return GemmStatus::kLaunchFailed;
    }
    return GemmStatus::kOk;
  }

  static constexpr SparseGemmKernel describe(const char* name) {
    return {describe_sparse_gemm(
                name, 80, Operands::k16bit,
                cutlass::platform::is_same<Element, cutlass::half_t>::value ? DType::kFloat16 : DType::kBFloat16,
                {ThreadblockShape::kM, ThreadblockShape::kN, ThreadblockShape::kK},
                static_cast<int64_t>(sizeof(typename Gemm::GemmKernel::SharedStorage)), MetadataLayout::kSm80_16bit,
                ThreadblockShape::kK, kAlignment, true),
            &workspace_bytes, &run};
  }
};

}  // namespace amber::cuda
