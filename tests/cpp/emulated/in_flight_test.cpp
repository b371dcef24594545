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
  const int64_t k_tiles = 10, tiles = 2 * 2;
  const ProductShape shape{2 * kernel().tile.m, 2 * kernel().tile.n, k_tiles * kernel().tile.k};
  with_16bit(kernel().dtype, [&](auto element) {
    const Product<decltype(element)> product(kernel(), kSparsePatterns[0], shape, 5);
    const DeviceProduct<decltype(element)> device(product);
    device.run();
    check(cudaDeviceSynchronize());
  });
  const auto is = [&](const char* part) { return std::string(kernel().name).find(part) != std::string::npos; };
  // The warps that multiply one tile: two groups of four, or with pingpong one.
  const uint64_t warps = is("pingpong") ? 4 : 8;
  // CUTLASS' sparse main loop keeps one group of instructions in flight, that of a tile of K, and waits for it before
  // the next one; after the last it waits once more, for nothing.
  uint64_t empty_waits = tiles * warps;
  // e4m3 without the fast accumulator adds the tensor core's sums to others after every second tile of K.
  if (kernel().operands == cuda::Operands::kE4m3 && !is("fast")) empty_waits += tiles * warps * k_tiles / 2;
  const std::map<std::string, uint64_t> want = {{"wait_group 0, 1 in flight", tiles * warps * k_tiles},
                                                {"wait_group 0, 0 in flight", empty_waits}};
  EXPECT_EQ(gpu_emulator::last_launch().wgmma_waits, want);
}

AMBER_INSTANTIATE_KERNELS(EmulatedInFlight, 90);

}  // namespace
