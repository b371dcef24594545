// SM90a: wgmma.mma_async.sp through CUTLASS' collective builder.
#pragma once

#include "amber/cuda/sparse_gemm/collective.cuh"

namespace amber::cuda {

template <typename Operand, typename Output, typename TileShape, typename ClusterShape, typename MainloopSchedule,
          typename EpilogueSchedule>
struct Sm90Collectives {
  using Fusion = FusionOf<Operand, TileShape, Output>;
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassSparseTensorOp, TileShape, ClusterShape,
      cutlass::epilogue::collective::EpilogueTileAuto, AccumulatorOf<Operand>, float, void, RowMajor,
      kElementsIn16Bytes<Output>, Output, RowMajor, kElementsIn16Bytes<Output>, EpilogueSchedule,
      typename Fusion::Tree>::CollectiveOp;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassSparseTensorOp, Operand, RowMajor, kElementsIn16Bytes<Operand>,
      Operand, ColumnMajor, kElementsIn16Bytes<Operand>, AccumulatorOf<Operand>, TileShape, ClusterShape,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(sizeof(typename Epilogue::SharedStorage))>,
      MainloopSchedule>::CollectiveOp;
  using SparseGemm = CollectiveSparseGemm<90, Operand, Output, Fusion, TileShape, Mainloop, Epilogue,
                                          cutlass::gemm::PersistentScheduler>;
};

template <typename Element, typename TileShape, typename ClusterShape, typename MainloopSchedule,
          typename EpilogueSchedule>
using Sm90SparseGemm =
    typename Sm90Collectives<Element, Element, TileShape, ClusterShape, MainloopSchedule, EpilogueSchedule>::SparseGemm;

template <typename Operand, typename Output, typename TileShape, typename ClusterShape, typename MainloopSchedule,
          typename EpilogueSchedule>
using Sm90SparseGemm8bit =
    typename Sm90Collectives<Operand, Output, TileShape, ClusterShape, MainloopSchedule, EpilogueSchedule>::SparseGemm;

using Cooperative = cutlass::gemm::KernelTmaWarpSpecializedCooperative;
using CooperativeEpilogue = cutlass::epilogue::TmaWarpSpecializedCooperative;
// e4m3 products summed in the tensor core's own, less precise accumulator for longer.
using CooperativeFast = cutlass::gemm::KernelTmaWarpSpecializedCooperativeFP8FastAccum;
using Pingpong = cutlass::gemm::KernelTmaWarpSpecializedPingpong;
using PingpongEpilogue = cutlass::epilogue::TmaWarpSpecialized;

}  // namespace amber::cuda
