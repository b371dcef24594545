#include "amber/cuda/compress/prune_compress.h"

#include "amber/cuda/compress/prune_compress_lane.h"

namespace amber::cuda {
namespace {

// Blocks that an SM holds at least, so that enough loads are in flight: as many as the kernel's registers allow without
// spilling, 64 a thread at 2:4, 128 where there are copies, 168 where 12 of 16 are merged.
template <Selection S>
inline constexpr int kMinBlocks = kExtraWindows<S> == 0                    ? 8
                                  : pattern_of(S) == Pattern{12, 16, true} ? 3
                                                                           : 4;

template <typename T, MetadataLayout Layout, Selection S>
__global__ void __launch_bounds__(kWarps * 32, kMinBlocks<S>) prune_compress_kernel(PruneCompressArgs args, int steps) {
  prune_compress_lane<T, Layout, S>(args, steps, blockIdx.x, blockIdx.y, threadIdx.x);
}

template <typename T, MetadataLayout Layout, Selection S>
cudaError_t launch(const PruneCompressArgs& args, cudaStream_t stream) {
  if (args.cols % kLaneColumns<S> != 0) return cudaErrorInvalidValue;
  const CompressGrid grid = compress_grid<Layout, S>(args);
  if (grid.y > 65535) return cudaErrorInvalidConfiguration;
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y));
  prune_compress_kernel<T, Layout, S><<<blocks, kWarps * 32, 0, stream>>>(args, grid.steps);
  return cudaGetLastError();
}

template <typename T, MetadataLayout Layout>
cudaError_t launch_pattern(const PruneCompressArgs& args, cudaStream_t stream) {
  return with_selection(args.pattern, cudaErrorInvalidValue,
                        [&](auto selection) { return launch<T, Layout, decltype(selection)::value>(args, stream); });
}

template <typename T>
cudaError_t launch_layout(const PruneCompressArgs& args, cudaStream_t stream) {
  switch (args.layout) {
    case MetadataLayout::kSm90_16bit:
      return launch_pattern<T, MetadataLayout::kSm90_16bit>(args, stream);
#if defined(AMBER_WITH_SM100)
    case MetadataLayout::kSm100_16bit:
      return launch_pattern<T, MetadataLayout::kSm100_16bit>(args, stream);
#endif
    case MetadataLayout::kSm80_16bit:
      return launch_pattern<T, MetadataLayout::kSm80_16bit>(args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

cudaError_t prune_compress(const PruneCompressArgs& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  if (args.value_rows < args.rows) return cudaErrorInvalidValue;
  switch (args.dtype) {
    case DType::kFloat16:
      return launch_layout<Float16>(args, stream);
    case DType::kBFloat16:
      return launch_layout<BFloat16>(args, stream);
    case DType::kFloat32:
      return cudaErrorInvalidValue;
  }
  return cudaErrorInvalidValue;
}

}  // namespace amber::cuda
