// SM90a: wgmma.mma_async.sp through CUTLASS' collective builder. Operand A, the sparse one, is the
// activations; B is the weight; the bias is added in the epilogue.
#pragma once

#include "amber/cuda/prune_compress_args.h"
#include "amber/cuda/sparse_gemm.h"
#include "cute/tensor.hpp"
#include "cutlass/epilogue/collective/collective_builder.hpp"
#include "cutlass/epilogue/fusion/sm90_callbacks_tma_warpspecialized.hpp"
#include "cutlass/gemm/collective/collective_builder.hpp"
#include "cutlass/gemm/device/gemm_universal_adapter.h"
#include "cutlass/gemm/kernel/gemm_universal.hpp"
#include "cutlass/util/packed_stride.hpp"

namespace amber::cuda {

template <typename Element, typename TileShape, typename ClusterShape, typename MainloopSchedule,
          typename EpilogueSchedule>
struct Sm90SparseGemm {
  static constexpr int kAlignment = 128 / cutlass::sizeof_bits<Element>::value;
  static constexpr auto kRound = cutlass::FloatRoundStyle::round_to_nearest;
  using RowMajor = cutlass::layout::RowMajor;
  using ColumnMajor = cutlass::layout::ColumnMajor;

  // acc + bias; a null bias reads as zero.
  using Bias = cutlass::epilogue::fusion::Sm90RowBroadcast<
      0, TileShape, Element, float, cute::Stride<cute::_0, cute::_1, int64_t>, kAlignment>;
  using AddBias = cutlass::epilogue::fusion::Sm90EVT<
      cutlass::epilogue::fusion::Sm90Compute<cutlass::plus, Element, float, kRound>, Bias,
      cutlass::epilogue::fusion::Sm90AccFetch>;

  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassSparseTensorOp, TileShape, ClusterShape,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, void, RowMajor, kAlignment,
      Element, RowMajor, kAlignment, EpilogueSchedule, AddBias>::CollectiveOp;

  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassSparseTensorOp, Element, RowMajor, kAlignment,
      Element, ColumnMajor, kAlignment, float, TileShape, ClusterShape,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Epilogue::SharedStorage))>,
      MainloopSchedule>::CollectiveOp;

  using Kernel = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Mainloop,
                                                      Epilogue, cutlass::gemm::PersistentScheduler>;
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
        {static_cast<const Element*>(args.values), SparseConfig::fill_layoutA(problem),
         static_cast<const Element*>(args.weight),
         cutlass::make_cute_packed_stride(typename Kernel::StrideB{}, cute::make_shape(n, k, 1)),
         reinterpret_cast<const typename Mainloop::ElementE*>(args.metadata),
         SparseConfig::fill_layoutE(problem)},
        {{{static_cast<const Element*>(args.bias), Element(0), {}}, {}, {}},
         nullptr,
         {},
         static_cast<Element*>(args.output),
         cutlass::make_cute_packed_stride(typename Kernel::StrideD{}, cute::make_shape(t, n, 1))}};
    arguments.hw_info.sm_count = args.multiprocessors;
    using Order = decltype(arguments.scheduler.raster_order);
    arguments.scheduler.raster_order = args.raster_order == RasterOrder::kAlongM   ? Order::AlongM
                                       : args.raster_order == RasterOrder::kAlongN ? Order::AlongN
                                                                                   : Order::Heuristic;
    arguments.scheduler.max_swizzle_size = args.max_swizzle;
    return arguments;
  }

  static size_t workspace_bytes(const SparseGemmArgs& args) {
    return Gemm::get_workspace_size(arguments(args));
  }

  static GemmStatus run(const SparseGemmArgs& args, void* workspace, cudaStream_t stream) {
#if defined(CUTLASS_ARCH_MMA_SPARSE_SM90_SUPPORTED)
    const auto arguments = Sm90SparseGemm::arguments(args);
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
    return {name,
            90,
            cute::is_same_v<Element, cutlass::half_t> ? DType::kFloat16 : DType::kBFloat16,
            MetadataLayout::kSm90_16bit,
            kCompressColumns,
            kAlignment,
            false,
            &workspace_bytes,
            &run};
  }
};

using Cooperative = cutlass::gemm::KernelTmaWarpSpecializedCooperative;
using CooperativeEpilogue = cutlass::epilogue::TmaWarpSpecializedCooperative;
using Pingpong = cutlass::gemm::KernelTmaWarpSpecializedPingpong;
using PingpongEpilogue = cutlass::epilogue::TmaWarpSpecialized;

template <int M, int N, int K>
using Tile = cute::Shape<cute::Int<M>, cute::Int<N>, cute::Int<K>>;

}  // namespace amber::cuda
