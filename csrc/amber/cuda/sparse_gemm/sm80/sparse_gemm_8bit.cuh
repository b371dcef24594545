// SM80, SM86 and SM89: int8 mma.sp through CUTLASS' SparseGemmWithVisitor; scales and bias are applied
// by its epilogue visitors.
#pragma once

#include "amber/cuda/sparse_gemm/descriptor.h"
// In this order: the visitors use what the first of these declares.
#include "cutlass/gemm/device/gemm_sparse_with_visitor.h"

#include "cutlass/epilogue/threadblock/fusion/visitors.hpp"

namespace amber::cuda {

template <typename Output, typename ThreadblockShape, typename WarpShape, int Stages>
struct Sm80SparseGemm8bit {
  static constexpr int kAlignment = 16;  // int8 operands
  static constexpr int kOutputAlignment = 128 / cutlass::sizeof_bits<Output>::value;
  static constexpr auto kRound = cutlass::FloatRoundStyle::round_to_nearest;
  using RowMajor = cutlass::layout::RowMajor;
  using ColumnMajor = cutlass::layout::ColumnMajor;
  using EachRow = cute::Stride<cute::_1, cute::_0, int64_t>;
  using EachColumn = cute::Stride<cute::_0, cute::_1, int64_t>;

  template <typename... Parameters>
  using Tree = cutlass::epilogue::threadblock::Sm80EVT<Parameters...>;
  template <template <class> class Function, typename Result>
  using Apply = cutlass::epilogue::threadblock::VisitorCompute<Function, Result, float, kRound>;

  using ThreadMap =
      cutlass::epilogue::threadblock::OutputTileThreadLayout<ThreadblockShape, WarpShape, Output, kOutputAlignment, 1>;
  // (acc * token_scale) * weight_scale + bias
  using ByToken = Tree<Apply<cutlass::multiplies, float>, cutlass::epilogue::threadblock::VisitorAccFetch,
                       cutlass::epilogue::threadblock::VisitorColBroadcast<ThreadMap, float, EachRow>>;
  using ByChannel = Tree<Apply<cutlass::multiplies, float>, ByToken,
                         cutlass::epilogue::threadblock::VisitorRowBroadcast<ThreadMap, float, EachColumn>>;
  using WithBias = Tree<Apply<cutlass::plus, Output>, ByChannel,
                        cutlass::epilogue::threadblock::VisitorRowBroadcast<ThreadMap, Output, EachColumn>>;
  using Store = Tree<cutlass::epilogue::threadblock::VisitorAuxStore<ThreadMap, Output, kRound,
                                                                     cute::Stride<int64_t, cute::_1, int64_t>>,
                     WithBias>;

  using Gemm = cutlass::gemm::device::SparseGemmWithVisitor<
      int8_t, RowMajor, int8_t, ColumnMajor, Output, RowMajor, int32_t, cutlass::arch::OpClassTensorOp,
      cutlass::arch::Sm80, ThreadblockShape, WarpShape, cutlass::gemm::GemmShape<16, 8, 64>, Store,
      cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<8>, Stages, kAlignment, kAlignment,
      cutlass::arch::OpMultiplyAddSaturate, 1>;

  static typename Gemm::Arguments arguments(const SparseGemmArgs& args) {
    const int n = static_cast<int>(args.out_features);
    const int k = static_cast<int>(args.in_features);
    // E interleaves rows in groups of 32, so the kernel must see the padded rows.
    const int t = static_cast<int>(metadata_rows(MetadataLayout::kSm80_8bit, args.rows));
    using E = typename Gemm::ElementE;
    auto* metadata = reinterpret_cast<E*>(const_cast<uint8_t*>(args.metadata));
    const auto layout_e = Gemm::LayoutE::packed({t, k / Gemm::kSparse / Gemm::kElementsPerElementE});
    auto* token_scale = const_cast<float*>(args.token_scale);
    auto* weight_scale = const_cast<float*>(args.weight_scale);
    auto* bias = static_cast<Output*>(const_cast<void*>(args.bias));
    const typename ByToken::Arguments by_token{{}, {token_scale, 0.0f, {}}, {}};
    const typename ByChannel::Arguments by_channel{by_token, {weight_scale, 0.0f, {}}, {}};
    const typename WithBias::Arguments with_bias{by_channel, {bias, Output(0), {}}, {}};
    return {{t, n, k},
            {static_cast<const int8_t*>(args.values), RowMajor(k / Gemm::kSparse)},
            {static_cast<const int8_t*>(args.weight), ColumnMajor(k)},
            {metadata, layout_e},
            {with_bias, {static_cast<Output*>(args.output), {n, cute::_1{}, int64_t{t} * n}}}};
  }

  static size_t workspace_bytes(const SparseGemmArgs& args) { return Gemm::get_workspace_size(arguments(args)); }

  static GemmStatus run(const SparseGemmArgs& args, void* workspace, cudaStream_t stream) {
    const auto arguments = Sm80SparseGemm8bit::arguments(args);
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
                name, 80, Operands::kInt8,
                cutlass::platform::is_same<Output, cutlass::half_t>::value ? DType::kFloat16 : DType::kBFloat16,
                {ThreadblockShape::kM, ThreadblockShape::kN, ThreadblockShape::kK}, MetadataLayout::kSm80_8bit,
                ThreadblockShape::kK,
                kAlignment,  // CUTLASS holds N to the alignment of W's elements, not only to Y's
                true),
            &workspace_bytes, &run};
  }
};

}  // namespace amber::cuda
