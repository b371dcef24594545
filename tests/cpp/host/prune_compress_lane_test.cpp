// The CUDA kernel's own code, run over every block and thread on the host, against the plain
// compressor: addresses, selection, values and padding, byte for byte. No GPU needed.
#include "amber/cuda/compress/prune_compress_lane.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <vector>

#include "amber/cpu/compress/compress.h"
#include "amber/cpu/compress/widen.h"
#include "amber/cpu/prune/prune.h"

namespace {

using namespace amber;

template <typename T>
std::vector<T> awkward(int64_t count, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  std::vector<T> x(count);
  for (T& value : x) {
    const int kind = rng() % 16;
    value = from_float<T>(kind == 0   ? std::numeric_limits<float>::quiet_NaN()
                          : kind == 1 ? std::numeric_limits<float>::infinity()
                          : kind == 2 ? -0.0f
                          : kind < 6  ? (kind % 2 ? 1.0f : -1.0f)
                                      : normal(rng));
  }
  return x;
}

template <typename T, MetadataLayout Layout, cuda::Selection S>
void check(int64_t rows, int64_t cols, bool with_scale, std::mt19937& rng) {
  constexpr Pattern kPattern = cuda::pattern_of(S);
  constexpr int kExtra = extra_windows(kPattern);
  SCOPED_TRACE(testing::Message() << kPattern.n << ":" << kPattern.m << " rows " << rows << " cols " << cols);
  const int64_t wide_cols = widened_cols(cols, kExtra);
  const std::vector<T> x = awkward<T>(rows * cols, rng);
  std::vector<float> scale(cols);
  for (float& c : scale) c = 0.5f + (rng() % 8) * 0.25f;
  const float* c = with_scale ? scale.data() : nullptr;
  const DType dtype = std::is_same_v<T, Float16> ? DType::kFloat16 : DType::kBFloat16;
  const bool padded = Layout == MetadataLayout::kSm80_16bit;
  const int64_t value_rows = padded ? metadata_rows(Layout, rows) : rows;

  std::vector<uint16_t> values(value_rows * wide_cols / 2, 0xeeee);
  std::vector<uint32_t> metadata(metadata_bytes(Layout, rows, wide_cols) / 4, 0xeeeeeeee);
  const cuda::PruneCompressArgs args{x.data(), c,       values.data(), reinterpret_cast<uint8_t*>(metadata.data()),
                                     rows,     cols,    value_rows,    dtype,
                                     Layout,   kPattern};
  const cuda::CompressGrid grid = cuda::compress_grid<Layout, S>(args);
  for (int64_t by = 0; by < grid.y; ++by) {
    for (int64_t bx = 0; bx < grid.x; ++bx) {
      for (int thread = 0; thread < cuda::kWarps * 32; ++thread) {
        cuda::prune_compress_lane<T, Layout, S>(args, grid.steps, bx, by, thread);
      }
    }
  }

  std::vector<uint8_t> mask(rows * cols);
  cpu::prune_rows({x.data(), c, nullptr, mask.data(), rows, cols, kPattern, dtype, Rescale::kNone}, 0, rows);
  std::vector<uint16_t> wide(rows * wide_cols), want_values(rows * wide_cols / 2);
  std::vector<uint8_t> wide_mask(rows * wide_cols);
  ASSERT_EQ(cpu::widen(x.data(), mask.data(), rows, cols, 2, kExtra, wide.data(), wide_mask.data()), Status::kOk);
  std::vector<uint8_t> want_metadata(metadata.size() * 4);
  ASSERT_EQ(cpu::compress_2_4(wide.data(), wide_mask.data(), rows, wide_cols, 2, Layout, want_values.data(),
                              want_metadata.data()),
            Status::kOk);
  want_values.resize(values.size(), 0);  // padding rows are zeros
  EXPECT_EQ(values, want_values);
  const auto* bytes = reinterpret_cast<const uint8_t*>(metadata.data());
  EXPECT_EQ(std::vector<uint8_t>(bytes, bytes + metadata.size() * 4), want_metadata);
}

template <typename T, MetadataLayout Layout, cuda::Selection S>
void check_shapes(const std::vector<int64_t>& all_cols) {
  std::mt19937 rng(11);
  for (int64_t rows : {1, 7, 31, 63, 64, 65, 127, 200}) {
    for (int64_t cols : all_cols) check<T, Layout, S>(rows, cols, rows % 2 == 0, rng);
  }
}

template <typename T, MetadataLayout Layout, size_t... Index>
void check_patterns(std::index_sequence<Index...>) {
  const std::vector<int64_t> cols_by_extra[] = {
      {16, 112, 128, 144, 512, 1040}, {32, 512, 544, 1056}, {32, 256, 288, 1056}};
  (check_shapes<T, Layout, Index>(cols_by_extra[kSparsePatterns[Index].extra_windows]), ...);
}

template <typename T, MetadataLayout Layout>
void check_patterns() {
  check_patterns<T, Layout>(std::make_index_sequence<std::size(kSparsePatterns)>{});
}

TEST(PruneCompressLane, Sm90Bf16) { check_patterns<BFloat16, MetadataLayout::kSm90_16bit>(); }
TEST(PruneCompressLane, Sm90Fp16) { check_patterns<Float16, MetadataLayout::kSm90_16bit>(); }
TEST(PruneCompressLane, Sm100Bf16) { check_patterns<BFloat16, MetadataLayout::kSm100_16bit>(); }
TEST(PruneCompressLane, Sm80Bf16) { check_patterns<BFloat16, MetadataLayout::kSm80_16bit>(); }
TEST(PruneCompressLane, Sm80Fp16) { check_patterns<Float16, MetadataLayout::kSm80_16bit>(); }

}  // namespace
