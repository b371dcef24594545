// Every sparse GEMM under other orders of its warps and other delays of its copies: a missing wait or barrier shows as
// a wrong result, or as a rule that is broken.
#include <cstring>

#include "cases/product.h"
#include "emulated.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

template <typename T>
void check_orders(const cuda::SparseGemmKernel& kernel, const ProductShape& shape, const std::vector<uint32_t>& seeds,
                  const std::vector<int>& delays) {
  const Product<T> product(kernel, kSparsePatterns[0], shape, 5);
  std::vector<T> right;
  for (uint32_t seed : seeds) {
    for (int delay : delays) {
      SCOPED_TRACE(testing::Message() << describe(shape) << " order " << seed << " delay " << delay);
      gpu_emulator::Settings settings = gpu_emulator::settings();
      settings.shuffle = seed, settings.async_delay = delay;
      const ScopedSettings scope(settings);
      const DeviceProduct<T> device(product);
      device.run();
      ASSERT_FALSE(was_stopped()) << gpu_emulator::last_launch().violation;
      const std::vector<T> got = device.output.download();
      if (right.empty()) {
        product.reference.expect(got);
        ASSERT_FALSE(testing::Test::HasFailure());
        right = got;
      }
      // Sums have one order, whatever that of the warps.
      ASSERT_EQ(std::memcmp(got.data(), right.data(), shape.t * shape.n * sizeof(T)), 0);
    }
  }
}

// More tiles along K than a pipeline has stages, and several tiles for every block, so that stages and the epilogue's
// memory are used again.
ProductShape shape_for(const cuda::SparseGemmKernel& kernel, int multiprocessors) {
  ProductShape shape{2 * kernel.tile.m + 1, 2 * kernel.tile.n + kernel.out_features_multiple,
                     round_up(9 * kernel.tile.k + 1, kernel.in_features_multiple)};
  shape.multiprocessors = multiprocessors;
  return shape;
}

void check_orders(const cuda::SparseGemmKernel& kernel, int multiprocessors, const std::vector<uint32_t>& seeds,
                  const std::vector<int>& delays) {
  with_16bit(kernel.dtype, [&](auto element) {
    check_orders<decltype(element)>(kernel, shape_for(kernel, multiprocessors), seeds, delays);
  });
}

class EmulatedOrders : public EmulatedKernel {};

TEST_P(EmulatedOrders, GiveTheSameRightProduct) { check_orders(kernel(), 2, {0, 1, 2}, {0, 7, 40}); }

AMBER_INSTANTIATE_KERNELS(EmulatedOrders, 80, 90);

class EmulatedOrdersSlow : public EmulatedKernel {};

TEST_P(EmulatedOrdersSlow, GiveTheSameRightProduct) {
  std::vector<uint32_t> seeds;
  for (uint32_t seed = 100; seed < 120; ++seed) seeds.push_back(seed);
  check_orders(kernel(), 2, seeds, {0, 1, 7, 40, 300});
  check_orders(kernel(), 0, {100, 101, 102}, {0, 7, 300});
}

AMBER_INSTANTIATE_KERNELS(EmulatedOrdersSlow, 80, 90);

}  // namespace
