// A sparse GEMM of e4m3 for 8.9, which the tests' builds do not have: compiled for 9.0, whose PTX has its instructions.
#include "cases/product.h"

namespace amber::cuda {
extern const SparseGemmKernel sm89_e4m3_bf16_128x128x128;
}

namespace {

using namespace amber;
using namespace amber::gpu_test;

TEST(EmulatedSm89, E4m3WithEveryPattern) {
  if (device_arch() != 90) GTEST_SKIP() << "this kernel's PTX is for compute capability 9.0";
  const cuda::SparseGemmKernel& kernel = cuda::sm89_e4m3_bf16_128x128x128;
  EXPECT_EQ(kernel.capabilities(), (std::vector<int>{89, 120, 121}));
  unsigned seed = 1;
  for (const SparsePattern& sparse : kSparsePatterns) {
    // One multiple of N and K, the tile, one step more; rows around E's padding and the tile.
    for (const auto& [t, n, k] :
         {std::array<int64_t, 3>{1, 16, 128}, {33, 128, 256}, {128, 144, 1152}, {129, 112, 384}}) {
      ProductShape shape{t, n, k};
      shape.biased = seed % 2 == 0, shape.scaled = seed % 3 != 0, shape.smoothed = seed % 5 != 0;
      shape.rescaled = seed % 3 == 0, shape.offset = seed % 2 * 16;
      check_product(kernel, sparse, shape, ++seed);
    }
  }
}

}  // namespace
