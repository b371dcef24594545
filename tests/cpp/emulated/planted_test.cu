// Kernels in the situations of this library's own, each with a switch that plants one mistake: the emulated GPU must
// stop the kernel, or its result must be wrong. Otherwise a pass of the real kernels would say nothing.
#include "amber/cuda/block_reduce.h"
#include "amber/cuda/compress/prune_compress_lane.h"
#include "cases/compress.h"
#include "emulated.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

gpu_emulator::Settings with_races(uint32_t shuffle) {
  gpu_emulator::Settings settings = gpu_emulator::settings();
  settings.check_races = true, settings.shuffle = shuffle;
  return settings;
}

// ---- block_reduce, as quantize_compress uses it: two reductions one after the other
enum class Barrier { kBoth, kNotAfterWriting, kNotAfterReading };

__device__ int reduce_with(Barrier barrier, int* part, int value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = value;
  if (barrier != Barrier::kNotAfterWriting) __syncthreads();
  int all = threadIdx.x % 32 < blockDim.x / 32 ? part[threadIdx.x % 32] : 0;
  for (int offset = 16; offset > 0; offset /= 2) all += __shfl_xor_sync(0xffffffffu, all, offset);
  if (barrier != Barrier::kNotAfterReading) __syncthreads();
  return all;
}

__global__ void reduce_twice(Barrier barrier, int* out) {
  __shared__ int part[32];
  const int first = reduce_with(barrier, part, static_cast<int>(threadIdx.x));
  out[threadIdx.x] = first + reduce_with(barrier, part, 1);
}

__global__ void reduce_as_the_library_does(double* out) {
  const double first = amber::cuda::block_reduce(static_cast<double>(threadIdx.x), amber::cuda::Add{});
  out[threadIdx.x] = first + amber::cuda::block_reduce(1.0, amber::cuda::Add{});
}

TEST(EmulatedPlanted, BlockReduceWithoutABarrier) {
  const DeviceArray<int> out(256);
  const DeviceArray<double> want(256);
  for (uint32_t seed : {0, 1, 2}) {
    const ScopedSettings scope(with_races(seed));
    reduce_as_the_library_does<<<1, 256>>>(want.get());
    EXPECT_FALSE(was_stopped()) << gpu_emulator::last_launch().violation;
    EXPECT_EQ(want.download(), std::vector<double>(256, 255 * 128 + 256));
    reduce_twice<<<1, 256>>>(Barrier::kBoth, out.get());
    EXPECT_FALSE(was_stopped()) << gpu_emulator::last_launch().violation;
    EXPECT_EQ(out.download(), std::vector<int>(256, 255 * 128 + 256));
    reduce_twice<<<1, 256>>>(Barrier::kNotAfterWriting, out.get());
    EXPECT_TRUE(was_stopped()) << "the partial sums are read before they are written";
    reduce_twice<<<1, 256>>>(Barrier::kNotAfterReading, out.get());
    EXPECT_TRUE(was_stopped()) << "the second reduction writes what the first still reads";
  }
}

// ---- prune_compress, whose blocks do not divide the rows and columns
enum class Tail { kMasked, kRowsNotMasked, kRowsOfValuesNotMasked, kOneBlockTooFew };

__global__ void compress_with(Tail tail, amber::cuda::PruneCompressArgs args, int steps) {
  amber::cuda::PruneCompressArgs planted = args;
  // The lane's own masks compare with these.
  if (tail == Tail::kRowsNotMasked) planted.rows = metadata_rows(args.layout, args.rows);
  if (tail == Tail::kRowsOfValuesNotMasked) planted.value_rows = metadata_rows(args.layout, args.rows);
  amber::cuda::prune_compress_lane<BFloat16, MetadataLayout::kSm90_16bit, 0>(planted, steps, blockIdx.x, blockIdx.y,
                                                                             threadIdx.x);
}

TEST(EmulatedPlanted, PruneCompressWithoutItsTailMasks) {
  const CompressCase which{amber::cuda::Operands::k16bit, DType::kBFloat16, MetadataLayout::kSm90_16bit,
                           kSparsePatterns[0]};
  const CompressShape shape{65, 144, 65, false, false, false, 0};
  const CompressProblem<BFloat16> problem(which, shape, 3);
  const auto run = [&](Tail tail, const auto& finish) {
    const DeviceArray<BFloat16> x(problem.x);
    const DeviceArray<uint8_t> values(problem.values.size()), metadata(problem.metadata.size());
    const amber::cuda::PruneCompressArgs args{x.get(),    nullptr,    values.get(),     metadata.get(), shape.rows,
                                              shape.cols, shape.rows, DType::kBFloat16, which.layout};
    const auto grid = amber::cuda::compress_grid<MetadataLayout::kSm90_16bit, 0>(args);
    compress_with<<<dim3(grid.x, grid.y - (tail == Tail::kOneBlockTooFew)), amber::cuda::kWarps * 32>>>(tail, args,
                                                                                                        grid.steps);
    finish(values, metadata);
  };
  run(Tail::kMasked, [&](const auto& values, const auto& metadata) {
    EXPECT_FALSE(was_stopped()) << gpu_emulator::last_launch().violation;
    EXPECT_EQ(values.download(), problem.values);
    EXPECT_EQ(metadata.download(), problem.metadata);
  });
  run(Tail::kRowsNotMasked, [](const auto&, const auto&) { EXPECT_TRUE(was_stopped()); });
  run(Tail::kRowsOfValuesNotMasked, [](const auto&, const auto&) { EXPECT_TRUE(was_stopped()); });
  run(Tail::kOneBlockTooFew, [&](const auto&, const auto& metadata) {
    EXPECT_FALSE(was_stopped()) << "nothing is read or written that must not be";
    EXPECT_NE(metadata.download(), problem.metadata);
  });
}

}  // namespace
