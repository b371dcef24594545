// The prune-and-compress kernel and its launch, for rows from any source.
#pragma once

#include "amber/cuda/compress/prune_compress.h"
#include "amber/cuda/compress/prune_compress_lane.h"

namespace amber::cuda {
namespace {

// Blocks that an SM holds at least, so that enough loads are in flight: as many as the kernel's registers allow without
// spilling. Of rows that lie in memory 64 a thread suffice at 2:4, 128 where there are copies, 168 where 12 of 16 are
// merged; rows that are made of two tensors need more, and have twice the loads in flight.
template <Selection S>
inline constexpr bool kMerges = pattern_of(S) == Pattern{12, 16, true};
template <Selection S, typename Source>
inline constexpr int kMinBlocks = Source::kTensors == 1 ? (kExtraWindows<S> == 0 ? 8
                                                           : kMerges<S>          ? 3
                                                                                 : 4)
                                                        : (kExtraWindows<S> == 0 ? 5
                                                           : kMerges<S>          ? 2
                                                                                 : 3);

template <typename T, MetadataLayout Layout, Selection S, typename Source>
__global__ void __launch_bounds__(kWarps * 32, kMinBlocks<S, Source>)
    prune_compress_kernel(PruneCompressArgs args, int steps) {
  prune_compress_lane<T, Layout, S, Source>(args, steps, blockIdx.x, blockIdx.y, threadIdx.x);
}

template <typename T, MetadataLayout Layout, Selection S, typename Source>
cudaError_t launch(const PruneCompressArgs& args, cudaStream_t stream) {
  if (args.cols % kLaneColumns<S> != 0) return cudaErrorInvalidValue;
  const CompressGrid grid = compress_grid<Layout, S>(args);
  if (grid.y > 65535) return cudaErrorInvalidConfiguration;
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y));
  prune_compress_kernel<T, Layout, S, Source><<<blocks, kWarps * 32, 0, stream>>>(args, grid.steps);
  return cudaGetLastError();
}

template <typename T, MetadataLayout Layout, typename Source>
cudaError_t launch_pattern(const PruneCompressArgs& args, cudaStream_t stream) {
  return with_selection(args.pattern, cudaErrorInvalidValue, [&](auto selection) {
    return launch<T, Layout, decltype(selection)::value, Source>(args, stream);
  });
}

template <typename T, typename Source>
cudaError_t launch_layout(const PruneCompressArgs& args, cudaStream_t stream) {
  switch (args.layout) {
    case MetadataLayout::kSm90_16bit:
      return launch_pattern<T, MetadataLayout::kSm90_16bit, Source>(args, stream);
#if defined(AMBER_WITH_SM100)
    case MetadataLayout::kSm100_16bit:
      return launch_pattern<T, MetadataLayout::kSm100_16bit, Source>(args, stream);
#endif
    case MetadataLayout::kSm80_16bit:
      return launch_pattern<T, MetadataLayout::kSm80_16bit, Source>(args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

// Checks the arguments and launches the kernel of rows from a Source<T>.
template <template <typename> class Source>
cudaError_t launch_prune_compress(const PruneCompressArgs& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  if (args.value_rows < args.rows) return cudaErrorInvalidValue;
  switch (args.dtype) {
    case DType::kFloat16:
      return launch_layout<Float16, Source<Float16>>(args, stream);
    case DType::kBFloat16:
      return launch_layout<BFloat16, Source<BFloat16>>(args, stream);
    case DType::kFloat32:
      return cudaErrorInvalidValue;
  }
  return cudaErrorInvalidValue;
}

}  // namespace
}  // namespace amber::cuda
