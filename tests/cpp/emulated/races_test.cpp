// The kernels that synchronise by barriers alone, watched for races on shared memory, in several orders of their warps.
// SM90's GEMMs synchronise through mbarriers: orders_test.cpp has them.
#include "amber/cuda/masked/prune.h"
#include "amber/cuda/masked/quantize.h"
#include "cases/product.h"
#include "emulated.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

// Runs `launch` in several orders; no rule may be broken.
template <typename Launch>
void expect_no_race(Launch launch) {
  for (uint32_t seed : {0, 1, 2, 3}) {
    gpu_emulator::Settings settings = gpu_emulator::settings();
    settings.check_races = true, settings.shuffle = seed;
    const ScopedSettings scope(settings);
    launch();
    EXPECT_FALSE(was_stopped()) << "order " << seed << ": " << gpu_emulator::last_launch().violation;
  }
}

class EmulatedCompressRaces : public testing::TestWithParam<CompressCase> {};

TEST_P(EmulatedCompressRaces, None) {
  const CompressCase& which = GetParam();
  for (bool rescaled : {false, true}) {
    if (rescaled && !which.quantized()) continue;
    const CompressShape shape{33, 1056, 33, true, true, rescaled, 0};
    const int64_t wide = widened_cols(shape.cols, which.sparse.extra_windows);
    const DeviceArray<Float16> x(random_normal<Float16>(shape.rows * shape.cols, 1));
    const DeviceArray<float> factors(random_factors(shape.cols, 2)), token_scale(shape.rows);
    const DeviceArray<uint8_t> values(shape.rows * wide), metadata(metadata_bytes(which.layout, shape.rows, wide));
    expect_no_race([&] {
      check(compress(which, shape,
                     {x.get(), factors.get(), factors.get(), values.get(), metadata.get(), token_scale.get()}));
    });
  }
}

INSTANTIATE_TEST_SUITE_P(, EmulatedCompressRaces, testing::ValuesIn(compress_cases()), ByName());

TEST(EmulatedMaskedRaces, None) {
  const int64_t rows = 5, cols = 4096;
  const DeviceArray<BFloat16> x(random_normal<BFloat16>(rows * cols, 1)), pruned(rows * cols);
  const DeviceArray<uint8_t> mask(rows * cols), values(rows * cols);
  const DeviceArray<float> token_scale(rows);
  for (auto rescale : {Rescale::kNone, Rescale::kVariance}) {
    for (Pattern pattern : {Pattern{2, 4}, {3, 5}, {16, 32}, {12, 16, true}}) {
      const int64_t whole = cols / pattern.m * pattern.m;
      expect_no_race([&] {
        check(cuda::prune({x.get(), nullptr, pruned.get(), mask.get(), rows, whole, pattern, DType::kBFloat16, rescale},
                          nullptr));
      });
    }
    expect_no_race([&] {
      check(cuda::quantize_pruned({x.get(),
                                   nullptr,
                                   nullptr,
                                   values.get(),
                                   token_scale.get(),
                                   rows,
                                   cols,
                                   {2, 4},
                                   DType::kBFloat16,
                                   rescale,
                                   QuantizedType::kInt8},
                                  x.get(), nullptr));
    });
  }
}

class EmulatedGemmRaces : public EmulatedKernel {};

TEST_P(EmulatedGemmRaces, None) {
  with_16bit(kernel().dtype, [&](auto element) {
    const ProductShape shape{kernel().tile.m + 1, kernel().tile.n + kernel().out_features_multiple,
                             5 * kernel().tile.k};
    const Product<decltype(element)> product(kernel(), kSparsePatterns[0], shape, 5);
    const DeviceProduct<decltype(element)> device(product);
    expect_no_race([&] { device.run(); });
    product.reference.expect(device.output.download());
  });
}

AMBER_INSTANTIATE_KERNELS(EmulatedGemmRaces, 80);

}  // namespace
