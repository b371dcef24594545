// Masks, pruned copies and compression on a GPU, bit for bit against the CPU kernels.
#include <cstring>

#include "amber/cpu/compress/compress.h"
#include "amber/cpu/compress/widen.h"
#include "amber/cpu/prune/prune.h"
#include "amber/cuda/compress/prune_compress.h"
#include "amber/cuda/masked/prune.h"
#include "support.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

template <typename T>
void check_prune(Pattern pattern, int64_t rows, int64_t cols, Rescale rescale) {
  SCOPED_TRACE(testing::Message() << pattern.n << ":" << pattern.m << " [" << rows << ", " << cols << "]");
  const bool rescaled = rescale == Rescale::kVariance;
  const auto x = rescaled ? random_normal<T>(rows * cols, 5) : random_awkward<T>(rows * cols, 5);
  std::vector<float> scale = random_normal<float>(cols, 6);
  for (float& c : scale) c = std::fabs(c) + 0.1f;

  std::vector<T> want(x.size());
  std::vector<uint8_t> want_mask(x.size());
  cpu::prune_rows({x.data(), scale.data(), want.data(), want_mask.data(), rows, cols, pattern, dtype_of<T>(), rescale},
                  0, rows);

  const DeviceArray<T> device_x(x), pruned(x.size());
  const DeviceArray<float> device_scale(scale);
  const DeviceArray<uint8_t> mask(x.size());
  check(cuda::prune(
      {device_x.get(), device_scale.get(), pruned.get(), mask.get(), rows, cols, pattern, dtype_of<T>(), rescale},
      nullptr));
  EXPECT_EQ(mask.download(), want_mask);
  const std::vector<T> got = pruned.download();
  if (!rescaled) {
    EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(T)), 0);
  } else {
    // The variances are summed in another order: at most the last bit of a product differs.
    const float ulp = sizeof(T) == 4 ? 0x1p-22f : std::is_same_v<T, Float16> ? 0x1p-10f : 0x1p-7f;
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(to_float(got[i]), to_float(want[i]), std::fabs(to_float(want[i])) * ulp) << i;
    }
  }
}

template <typename T>
void check_patterns() {
  for (Pattern pattern :
       {Pattern{2, 4}, {4, 8}, {8, 16}, {1, 4}, {10, 16}, {3, 5}, {16, 32}, {1, 1}, {10, 16, true}, {12, 16, true}}) {
    for (int64_t rows : {1, 65}) {
      for (Rescale rescale : {Rescale::kNone, Rescale::kVariance}) {
        check_prune<T>(pattern, rows, pattern.m * 37, rescale);
      }
    }
  }
}

TEST(GpuPrune, Float32) {
  AMBER_NEEDS_GPU();
  check_patterns<float>();
}
TEST(GpuPrune, Float16) {
  AMBER_NEEDS_GPU();
  check_patterns<Float16>();
}
TEST(GpuPrune, BFloat16) {
  AMBER_NEEDS_GPU();
  check_patterns<BFloat16>();
}

TEST(GpuPrune, MisalignedPointers) {
  AMBER_NEEDS_GPU();
  const int64_t rows = 3, cols = 64;
  const auto x = random_awkward<BFloat16>(rows * cols + 1, 4);
  std::vector<uint8_t> want(rows * cols);
  cpu::prune_rows({x.data() + 1, nullptr, nullptr, want.data(), rows, cols, {2, 4}, DType::kBFloat16, Rescale::kNone},
                  0, rows);
  const DeviceArray<BFloat16> device_x(x);
  const DeviceArray<uint8_t> mask(want.size());
  check(cuda::prune(
      {device_x.get() + 1, nullptr, nullptr, mask.get(), rows, cols, {2, 4}, DType::kBFloat16, Rescale::kNone},
      nullptr));
  EXPECT_EQ(mask.download(), want);
}

TEST(GpuPrune, EmptyLaunchesNothing) {
  AMBER_NEEDS_GPU();
  EXPECT_EQ(cuda::prune({nullptr, nullptr, nullptr, nullptr, 0, 64, {2, 4}, DType::kFloat16, Rescale::kNone}, nullptr),
            cudaSuccess);
}

template <typename T>
void check_compress(Pattern pattern, MetadataLayout layout, int64_t rows, int64_t cols) {
  SCOPED_TRACE(testing::Message() << pattern.n << ":" << pattern.m << " [" << rows << ", " << cols << "]");
  const int extra = extra_windows(pattern);
  const int64_t wide_cols = widened_cols(cols, extra);
  const auto x = random_awkward<T>(rows * cols, static_cast<unsigned>(rows + cols));
  std::vector<uint8_t> mask(x.size());
  cpu::prune_rows({x.data(), nullptr, nullptr, mask.data(), rows, cols, pattern, dtype_of<T>(), Rescale::kNone}, 0,
                  rows);
  const int64_t value_rows = layout == MetadataLayout::kSm80_16bit ? metadata_rows(layout, rows) : rows;
  std::vector<uint16_t> wide(rows * wide_cols), want(rows * wide_cols / 2);
  std::vector<uint8_t> wide_mask(wide.size()), want_metadata(metadata_bytes(layout, rows, wide_cols));
  ASSERT_EQ(cpu::widen(x.data(), mask.data(), rows, cols, 2, extra, wide.data(), wide_mask.data()), Status::kOk);
  ASSERT_EQ(
      cpu::compress_2_4(wide.data(), wide_mask.data(), rows, wide_cols, 2, layout, want.data(), want_metadata.data()),
      Status::kOk);
  want.resize(value_rows * wide_cols / 2, 0);

  const DeviceArray<T> device_x(x);
  const DeviceArray<uint16_t> values(want.size());
  const DeviceArray<uint8_t> metadata(want_metadata.size());
  check(cuda::prune_compress(
      {device_x.get(), nullptr, values.get(), metadata.get(), rows, cols, value_rows, dtype_of<T>(), layout, pattern},
      nullptr));
  EXPECT_EQ(values.download(), want);
  EXPECT_EQ(metadata.download(), want_metadata);
}

template <typename T>
void check_compress_shapes(MetadataLayout layout) {
  for (int64_t rows : {1, 63, 64, 65, 127, 4099}) {
    for (int64_t cols : {64, 448, 4096}) {
      for (Pattern pattern : {Pattern{2, 4}, {4, 8}, {8, 16}, {10, 16, true}, {12, 16, true}}) {
        check_compress<T>(pattern, layout, rows, cols);
      }
    }
  }
}

TEST(GpuCompress, Sm90) {
  AMBER_NEEDS_GPU();
  check_compress_shapes<BFloat16>(MetadataLayout::kSm90_16bit);
  check_compress_shapes<Float16>(MetadataLayout::kSm90_16bit);
}

TEST(GpuCompress, Sm80) {
  AMBER_NEEDS_GPU();
  check_compress_shapes<BFloat16>(MetadataLayout::kSm80_16bit);
  check_compress_shapes<Float16>(MetadataLayout::kSm80_16bit);
}

TEST(GpuCompress, RefusesWhatItCannotDo) {
  AMBER_NEEDS_GPU();
  const auto layout = MetadataLayout::kSm90_16bit;
  EXPECT_EQ(cuda::prune_compress({nullptr, nullptr, nullptr, nullptr, 4, 24, 4, DType::kFloat16, layout}, nullptr),
            cudaErrorInvalidValue);
  EXPECT_EQ(cuda::prune_compress({nullptr, nullptr, nullptr, nullptr, 4, 64, 4, DType::kFloat32, layout}, nullptr),
            cudaErrorInvalidValue);
  EXPECT_EQ(cuda::prune_compress({nullptr, nullptr, nullptr, nullptr, 0, 64, 0, DType::kFloat16, layout}, nullptr),
            cudaSuccess);
}

}  // namespace
