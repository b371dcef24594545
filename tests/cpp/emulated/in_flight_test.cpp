// How the SM90 GEMMs overlap their matrix instructions: one wait for each tile of K, with all of the tile's
// instructions in flight, and none for a single instruction.
#include <map>

#include "cases/product.h"
#include "emulated.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

class EmulatedInFlight : public EmulatedKernel {};

TEST_P(EmulatedInFlight, OneWaitForEachTileOfK) {
  if (kernel().arch != 90) GTEST_SKIP() << "mma.sp is synchronous";
  const int64_t k_tiles = 10, tiles = 2 * 2;
  const ProductShape shape{2 * kernel().tile.m, 2 * kernel().tile.n, k_tiles * kernel().tile.k};
  with_16bit(kernel().dtype, [&](auto element) {
    const Product<decltype(element)> product(kernel(), kSparsePatterns[0], shape, 5);
    const DeviceProduct<decltype(element)> device(product);
    device.run();
    check(cudaDeviceSynchronize());
  });
  // A warp group of 4 warps owns 64 rows of a tile, or with 256 rows or columns two groups share the tile as CUTLASS
  // divides it: the cooperative schedules always use two groups, pingpong one.
  const bool pingpong = std::string(kernel().name).find("pingpong") != std::string::npos;
  const uint64_t warps = pingpong ? 4 : 8;
  // CUTLASS' sparse main loop keeps one group of instructions in flight, a tile's, and waits for it before the next
  // tile; after the last one it waits once more, for nothing.
  const std::map<std::string, uint64_t> want = {{"wait_group 0, 1 in flight", tiles * warps * k_tiles},
                                                {"wait_group 0, 0 in flight", tiles * warps}};
  EXPECT_EQ(gpu_emulator::last_launch().wgmma_waits, want);
}

AMBER_INSTANTIATE_KERNELS(EmulatedInFlight);

}  // namespace
