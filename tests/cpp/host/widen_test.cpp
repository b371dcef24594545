// Patterns with extra windows, the whole way on the host: select, widen, compress, decompress.
#include "amber/cpu/compress/widen.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <vector>

#include "amber/cpu/compress/compress.h"
#include "amber/cpu/prune/prune.h"

namespace {

using namespace amber;

template <typename T>
std::vector<T> awkward(int64_t count, std::mt19937& rng) {
  std::vector<T> x(count);
  for (T& value : x) {
    const int kind = rng() % 8;
    value = from_float<T>(kind == 0   ? std::numeric_limits<float>::quiet_NaN()
                          : kind == 1 ? -std::numeric_limits<float>::infinity()
                          : kind == 2 ? -0.0f
                                      : static_cast<float>(rng() % 9) - 4.0f);
  }
  return x;
}

TEST(Widen, KeepsEverySurvivorOnceAndCompresses) {
  std::mt19937 rng(5);
  const int64_t rows = 5, cols = 96;
  const auto x = awkward<BFloat16>(rows * cols, rng);
  for (Pattern pattern : {Pattern{2, 4}, {4, 8}, {8, 16}, {10, 16, true}, {12, 16, true}}) {
    const int extra = extra_windows(pattern);
    const int64_t wide_cols = widened_cols(cols, extra);
    std::vector<uint8_t> mask(x.size()), wide_mask(rows * wide_cols);
    std::vector<uint16_t> wide(rows * wide_cols), back(rows * wide_cols), values(rows * wide_cols / 2);
    cpu::prune_rows({x.data(), nullptr, nullptr, mask.data(), rows, cols, pattern, DType::kBFloat16, Rescale::kNone}, 0,
                    rows);
    ASSERT_EQ(cpu::widen(x.data(), mask.data(), rows, cols, 2, extra, wide.data(), wide_mask.data()), Status::kOk);
    const auto layout = MetadataLayout::kSm90_16bit;
    std::vector<uint8_t> metadata(metadata_bytes(layout, rows, wide_cols));
    ASSERT_EQ(
        cpu::compress_2_4(wide.data(), wide_mask.data(), rows, wide_cols, 2, layout, values.data(), metadata.data()),
        Status::kOk);
    ASSERT_EQ(cpu::decompress_2_4(values.data(), metadata.data(), rows, wide_cols, 2, layout, back.data()),
              Status::kOk);
    EXPECT_EQ(back, wide);

    std::vector<std::vector<uint16_t>> found(x.size());
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t k = 0; k < wide_cols; ++k) {
        const int64_t source = cpu::source_column(k, cols, extra);
        const uint16_t value = back[t * wide_cols + k];
        if (value != 0) {
          ASSERT_GE(source, 0);
          found[t * cols + source].push_back(value);
        }
      }
    }
    for (size_t i = 0; i < x.size(); ++i) {
      const bool expected = mask[i] && x[i].bits != 0;  // +0 leaves no trace, -0 does
      ASSERT_EQ(found[i].size(), expected ? 1u : 0u) << i;
      if (expected) {
        ASSERT_EQ(found[i][0], x[i].bits);
      }
    }
  }
}

TEST(Widen, NamesWhatIsWrong) {
  const std::vector<uint16_t> x(16, 1);
  std::vector<uint8_t> all(16, 1), wide_mask(widened_cols(16, 2));
  std::vector<uint16_t> wide(widened_cols(16, 2));
  const auto status = [&](int64_t cols, int extra, const uint8_t* mask) {
    return cpu::widen(x.data(), mask, 1, cols, 2, extra, wide.data(), wide_mask.data());
  };
  EXPECT_EQ(status(16, 2, all.data()), Status::kMaskDoesNotFit);
  EXPECT_EQ(status(16, 3, all.data()), Status::kInvalidPattern);
  EXPECT_EQ(status(12, 2, all.data()), Status::kColsNotMultipleOfM);
  EXPECT_EQ(status(16, 2, nullptr), Status::kNullPointer);
}

}  // namespace
