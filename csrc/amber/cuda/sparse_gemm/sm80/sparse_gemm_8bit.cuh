// SM80, and what has its instructions (8.x, 12.x): mma.sp of int8 through CUTLASS' SparseGemmWithVisitor; scales and
// bias are applied by its epilogue visitors. The same for e4m3, whose instruction SM89 has first.
#pragma once

#include "amber/cuda/sparse_gemm/descriptor.h"
#include "amber/cuda/sparse_gemm/sm89/ordered_mma.h"
// In this order: the visitors use what the first of these declares.
#include "cutlass/gemm/device/gemm_sparse_with_visitor.h"

#include "cutlass/epilogue/threadblock/fusion/visitors.hpp"

namespace amber::cuda {

template <typename Operand, typename Output, typename ThreadblockShape, typename WarpShape, int Stages>
struct MmaSparseGemm8bit {
  static constexpr bool kIsInt8 = cutlass::platform::is_same<Operand, int8_t>::value;
  static constexpr int kAlignment = 16;  // operands
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

  // The tag Sm80 chooses how operands are loaded, which is the same on all of these; the operands choose the
  // instruction.
  using Gemm = cutlass::gemm::device::SparseGemmWithVisitor<
      Operand, RowMajor, Operand, ColumnMajor, Output, RowMajor, cute::conditional_t<kIsInt8, int32_t, float>,
      cutlass::arch::OpClassTensorOp, cutlass::arch::Sm80, ThreadblockShape, WarpShape,
      cutlass::gemm::GemmShape<16, 8, 64>, Store, cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<8>, Stages,
      kAlignment, kAlignment, cute::conditional_t<kIsInt8, cutlass::arch::OpMultiplyAddSaturate, OrderedMultiplyAdd>,
      1>;

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
            {static_cast<const Operand*>(args.values), RowMajor(k / Gemm::kSparse)},
            {static_cast<const Operand*>(args.weight), ColumnMajor(k)},
            {metadata, layout_e},
            {with_bias, {static_cast<Output*>(args.output), {n, cute::_1{}, int64_t{t} * n}}}};
  }

  static size_t workspace_bytes(const SparseGemmArgs& args) { return Gemm::get_workspace_size(arguments(args)); }

  static GemmStatus run(const SparseGemmArgs& args, void* workspace, cudaStream_t stream) {
    const auto arguments = MmaSparseGemm8bit::arguments(args);
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
                name, kIsInt8 ? 80 : 89, kIsInt8 ? Operands::kInt8 : Operands::kE4m3,
                cutlass::platform::is_same<Output, cutlass::half_t>::value ? DType::kFloat16 : DType::kBFloat16,
                {ThreadblockShape::kM, ThreadblockShape::kN, ThreadblockShape::kK},
                static_cast<int64_t>(sizeof(typename Gemm::GemmKernel::SharedStorage)), MetadataLayout::kSm80_8bit,
                ThreadblockShape::kK,
                kAlignment,  // CUTLASS holds N to the alignment of W's elements, not only to Y's
                true),
            &workspace_bytes, &run};
  }
};

template <typename Output, typename ThreadblockShape, typename WarpShape, int Stages>
using Sm80SparseGemm8bit = MmaSparseGemm8bit<int8_t, Output, ThreadblockShape, WarpShape, Stages>;

template <typename Output, typename ThreadblockShape, typename WarpShape, int Stages>
using Sm89SparseGemm = MmaSparseGemm8bit<cutlass::float_e4m3_t, Output, ThreadblockShape, WarpShape, Stages>;

}  // namespace amber::cuda
