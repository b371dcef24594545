// What the kernels of CUTLASS' collective builders share, for SM90 and SM100: the epilogue, and how one is run. Operand
// A, the sparse one, is the activations; B is the weight; scales and bias are applied in the epilogue.
#pragma once

#include "amber/cuda/sparse_gemm/descriptor.h"
#include "cute/tensor.hpp"
#include "cutlass/epilogue/collective/collective_builder.hpp"
#include "cutlass/epilogue/fusion/sm90_callbacks_tma_warpspecialized.hpp"
#include "cutlass/gemm/collective/collective_builder.hpp"
#include "cutlass/gemm/device/gemm_universal_adapter.h"
#include "cutlass/gemm/kernel/gemm_universal.hpp"
#include "cutlass/util/packed_stride.hpp"

namespace amber::cuda {

using RowMajor = cutlass::layout::RowMajor;
using ColumnMajor = cutlass::layout::ColumnMajor;
namespace fusion = cutlass::epilogue::fusion;

template <typename Element>
constexpr int kElementsIn16Bytes = 128 / cutlass::sizeof_bits<Element>::value;

template <template <class> class Function, typename Output, typename... Children>
using Apply = fusion::Sm90EVT<fusion::Sm90Compute<Function, Output, float, cutlass::FloatRoundStyle::round_to_nearest>,
                              Children...>;

// One number a column of Y; a null pointer reads as zero.
template <typename TileShape, typename Element>
using EachColumn = fusion::Sm90RowBroadcast<0, TileShape, Element, float, cute::Stride<cute::_0, cute::_1, int64_t>,
                                            kElementsIn16Bytes<Element>>;

// acc + bias
template <typename TileShape, typename Output>
struct AddBias {
  using Tree = Apply<cutlass::plus, Output, EachColumn<TileShape, Output>, fusion::Sm90AccFetch>;

  static typename Tree::Arguments arguments(const SparseGemmArgs& args) {
    return {{static_cast<const Output*>(args.bias), Output(0), {}}, {}, {}};
  }
};

// acc * token_scale * weight_scale + bias
template <typename TileShape, typename Output>
struct ScaleAndAddBias {
  using TokenScale = fusion::Sm90ColBroadcast<0, TileShape, float, float, cute::Stride<cute::_1, cute::_0, int64_t>>;
  using ByToken = Apply<cutlass::multiplies, float, TokenScale, fusion::Sm90AccFetch>;
  using ByChannel = Apply<cutlass::multiplies, float, EachColumn<TileShape, float>, ByToken>;
  using Tree = Apply<cutlass::plus, Output, EachColumn<TileShape, Output>, ByChannel>;

  static typename Tree::Arguments arguments(const SparseGemmArgs& args) {
    return {{static_cast<const Output*>(args.bias), Output(0), {}},
            {{args.weight_scale, 0.0f, {}}, {{args.token_scale, 0.0f, {}}, {}, {}}, {}},
            {}};
  }
};

template <int M, int N, int K>
using Tile = cute::Shape<cute::Int<M>, cute::Int<N>, cute::Int<K>>;

// int8 accumulates in s32, the others in fp32.
template <typename Operand>
using AccumulatorOf = cute::conditional_t<cute::is_same_v<Operand, int8_t>, int32_t, float>;

// Scales belong to 8-bit operands.
template <typename Operand, typename TileShape, typename Output>
using FusionOf =
    cute::conditional_t<sizeof(Operand) == 2, AddBias<TileShape, Output>, ScaleAndAddBias<TileShape, Output>>;

// TileShape: of one block, and so of one SM.
template <int Arch, typename Operand, typename Output, typename Fusion, typename TileShape, typename Mainloop,
          typename Epilogue, typename Scheduler>
struct CollectiveSparseGemm {
  using Kernel = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Mainloop, Epilogue, Scheduler>;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;

  static typename Gemm::Arguments arguments(const SparseGemmArgs& args) {
    const int t = static_cast<int>(args.rows);
    const int n = static_cast<int>(args.out_features);
    const int k = static_cast<int>(args.in_features);
    const auto problem = cute::make_shape(t, n, k, 1);
    using SparseConfig = typename Mainloop::SparseConfig;
    typename Gemm::Arguments arguments{
        cutlass::gemm::GemmUniversalMode::kGemm,
        problem,
        {static_cast<const Operand*>(args.values), SparseConfig::fill_layoutA(problem),
         static_cast<const Operand*>(args.weight),
         cutlass::make_cute_packed_stride(typename Kernel::StrideB{}, cute::make_shape(n, k, 1)),
         reinterpret_cast<const typename Mainloop::ElementE*>(args.metadata), SparseConfig::fill_layoutE(problem)},
        {Fusion::arguments(args),
         nullptr,
         {},
         static_cast<Output*>(args.output),
         cutlass::make_cute_packed_stride(typename Kernel::StrideD{}, cute::make_shape(t, n, 1))}};
    arguments.hw_info.sm_count = args.multiprocessors;
    using Order = decltype(arguments.scheduler.raster_order);
    arguments.scheduler.raster_order = args.raster_order == RasterOrder::kAlongM   ? Order::AlongM
                                       : args.raster_order == RasterOrder::kAlongN ? Order::AlongN
                                                                                   : Order::Heuristic;
    arguments.scheduler.max_swizzle_size = args.max_swizzle;
    return arguments;
  }

  static size_t workspace_bytes(const SparseGemmArgs& args) { return Gemm::get_workspace_size(arguments(args)); }

  static GemmStatus run(const SparseGemmArgs& args, void* workspace, cudaStream_t stream) {
#if defined(CUTLASS_ARCH_MMA_SPARSE_SM90_SUPPORTED)
    const auto arguments = CollectiveSparseGemm::arguments(args);
    Gemm gemm;
    if (gemm.can_implement(arguments) != cutlass::Status::kSuccess) return GemmStatus::kUnsupportedShape;
    // `initialize` clears barriers on the stream too, so it needs it as much as `run` does.
    if (gemm.initialize(arguments, workspace, stream) != cutlass::Status::kSuccess ||
        gemm.run(stream) != cutlass::Status::kSuccess) {
      return GemmStatus::kLaunchFailed;
    }
    return GemmStatus::kOk;
#else
    return GemmStatus::kNotCompiledForThisArch;
#endif
  }

  static constexpr SparseGemmKernel describe(const char* name) {
    constexpr bool wide = sizeof(Operand) == 2;
    constexpr auto operands = wide                               ? Operands::k16bit
                              : cute::is_same_v<Operand, int8_t> ? Operands::kInt8
                                                                 : Operands::kE4m3;
    constexpr auto layout_16bit = Arch == 90 ? MetadataLayout::kSm90_16bit : MetadataLayout::kSm100_16bit;
    constexpr auto layout_8bit = Arch == 90 ? MetadataLayout::kSm90_8bit : MetadataLayout::kSm100_8bit;
    // Rows of the compressed X are whole 16 bytes; TMA pads K up to the tile.
    return {describe_sparse_gemm(name, Arch, operands,
                                 cute::is_same_v<Output, cutlass::half_t> ? DType::kFloat16 : DType::kBFloat16,
                                 {cute::size<0>(TileShape{}), cute::size<1>(TileShape{}), cute::size<2>(TileShape{})},
                                 Kernel::SharedStorageSize, wide ? layout_16bit : layout_8bit,
                                 2 * kElementsIn16Bytes<Operand>, kElementsIn16Bytes<Output>, false),
            &workspace_bytes, &run};
  }
};

}  // namespace amber::cuda
