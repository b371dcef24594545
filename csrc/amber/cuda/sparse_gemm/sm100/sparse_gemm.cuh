// SM100a: tcgen05.mma.sp of two SMs through CUTLASS' collective builder. E lies in memory as for SM90, its rows padded
// to 128.
#pragma once

#include "amber/cuda/sparse_gemm/collective.cuh"

namespace amber::cuda {

// BlockTile is what each of two SMs computes of their instruction's tile, which has twice the rows.
template <typename Operand, typename Output, typename BlockTile>
struct Sm100Collectives {
  using Cluster = Tile<2, 1, 1>;
  using PairTile = decltype(cute::make_shape(cute::_2{} * cute::size<0>(BlockTile{}), cute::size<1>(BlockTile{}),
                                             cute::size<2>(BlockTile{})));
  using Fusion = FusionOf<Operand, BlockTile, Output>;
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm100, cutlass::arch::OpClassSparseTensorOp, PairTile, Cluster,
      cutlass::epilogue::collective::EpilogueTileAuto, AccumulatorOf<Operand>, float, void, RowMajor,
      kElementsIn16Bytes<Output>, Output, RowMajor, kElementsIn16Bytes<Output>,
      cutlass::epilogue::TmaWarpSpecialized2Sm, typename Fusion::Tree>::CollectiveOp;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm100, cutlass::arch::OpClassSparseTensorOp, Operand, RowMajor, 2 * kElementsIn16Bytes<Operand>,
      Operand, ColumnMajor, kElementsIn16Bytes<Operand>, AccumulatorOf<Operand>, PairTile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveoutEpi<Epilogue>,
      cutlass::gemm::KernelSparseTmaWarpSpecialized2SmSm100>::CollectiveOp;
  using SparseGemm = CollectiveSparseGemm<100, Operand, Output, Fusion, BlockTile, Mainloop, Epilogue, void>;
};

template <typename Operand, typename Output, typename BlockTile>
using Sm100SparseGemm = typename Sm100Collectives<Operand, Output, BlockTile>::SparseGemm;

}  // namespace amber::cuda
