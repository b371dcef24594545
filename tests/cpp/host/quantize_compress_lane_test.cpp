// The CUDA kernel's own code, run over every row and thread on the host, against the CPU's quantisation
// and the plain compressor: addresses, selection, values, scales and padding, byte for byte. No GPU needed.
#include "amber/cuda/compress/quantize_compress_lane.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "amber/cpu/compress/compress.h"
#include "amber/cpu/compress/widen.h"
#include "amber/cpu/prune/prune.h"
#include "amber/cpu/quantize/quantize.h"

namespace {

using namespace amber;

template <typename T>
std::vector<T> tokens(int64_t rows, int64_t cols, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  std::vector<T> x(rows * cols);
  for (T& value : x) {
    const int kind = rng() % 8;
    value = from_float<T>(kind == 0 ? -0.0f : kind == 1 ? (rng() % 2 ? 1.0f : -1.0f) : normal(rng));
  }
  for (int64_t t = 0; t < rows; ++t) {
    T* row = x.data() + t * cols;
    if (t % 7 == 3) row[rng() % cols] = from_float<T>(std::numeric_limits<float>::quiet_NaN());
    if (t % 7 == 4) row[rng() % cols] = from_float<T>(std::numeric_limits<float>::infinity());
    if (t % 7 == 5) row[rng() % cols] = from_float<T>(50000.0f);
    if (t % 7 == 6) std::fill(row, row + cols, T{});
  }
  return x;
}

// As the kernel: every thread selects, the block reduces, every thread stores.
template <typename T, bool Rescaled, cuda::Selection S, int Chunks>
void run_block(const cuda::QuantizeCompressArgs& args, int64_t t, int threads) {
  struct Registers {
    cuda::QuantizeChunk<S> chunk[Chunks];
  };
  std::vector<Registers> registers(threads);
  cuda::RowPart row;
  for (int thread = 0; thread < threads; ++thread) {
    const auto part = cuda::quantize_lane_select<T, Rescaled, S>(args, t, thread, threads, registers[thread].chunk);
    row.absmax_bits = std::max(row.absmax_bits, part.absmax_bits);
    row.moments.sum += part.moments.sum, row.moments.squares += part.moments.squares;
    row.moments.kept_sum += part.moments.kept_sum, row.moments.kept_squares += part.moments.kept_squares;
  }
  const TokenScale units = token_scale(row.absmax_bits, largest_value(args.type));
  const float factor = Rescaled ? cuda::rescale_factor(row.moments, args.cols) : 1.0f;
  if (t < args.value_rows) args.token_scale[t] = t < args.rows ? units.scale * factor : 0.0f;
  for (int thread = 0; thread < threads; ++thread) {
    if (args.type == QuantizedType::kInt8) {
      cuda::quantize_lane_store<T, QuantizedType::kInt8, S>(args, t, thread, threads, registers[thread].chunk,
                                                            units.inverse);
    } else {
      cuda::quantize_lane_store<T, QuantizedType::kE4m3, S>(args, t, thread, threads, registers[thread].chunk,
                                                            units.inverse);
    }
  }
}

template <typename T, bool Rescaled, cuda::Selection S>
void check(MetadataLayout layout, QuantizedType type, int64_t rows, int64_t cols, bool factors) {
  constexpr Pattern kPattern = cuda::pattern_of(S);
  constexpr int kExtra = extra_windows(kPattern);
  SCOPED_TRACE(testing::Message() << kPattern.n << ":" << kPattern.m << " rows " << rows << " cols " << cols);
  const int64_t wide_cols = widened_cols(cols, kExtra);
  std::mt19937 rng(17);
  const std::vector<T> x = tokens<T>(rows, cols, rng);
  std::vector<float> smooth(cols), scale(cols);
  for (int64_t k = 0; k < cols; ++k) smooth[k] = 0.25f + (rng() % 9) * 0.5f, scale[k] = 0.5f + (rng() % 5);
  const DType dtype = std::is_same_v<T, Float16> ? DType::kFloat16 : DType::kBFloat16;
  const int64_t value_rows = layout == MetadataLayout::kSm80_8bit ? metadata_rows(layout, rows) : rows;

  std::vector<uint8_t> values(value_rows * wide_cols / 2, 0xee);
  std::vector<uint32_t> metadata(metadata_bytes(layout, rows, wide_cols) / 4, 0xeeeeeeee);
  std::vector<float> got_scale(value_rows, 777.0f);
  const cuda::QuantizeCompressArgs args{x.data(),
                                        factors ? smooth.data() : nullptr,
                                        factors ? scale.data() : nullptr,
                                        values.data(),
                                        reinterpret_cast<uint8_t*>(metadata.data()),
                                        got_scale.data(),
                                        rows,
                                        cols,
                                        value_rows,
                                        dtype,
                                        layout,
                                        type,
                                        Rescaled,
                                        kPattern};
  const cuda::QuantizeThreads shape = cuda::quantize_threads(args);
  ASSERT_LE(shape.threads, cuda::kMaxQuantizeThreads);
  for (int64_t t = 0; t < cuda::quantize_blocks(args); ++t) {
    if (shape.chunks == 1) {
      run_block<T, Rescaled, S, 1>(args, t, shape.threads);
    } else {
      run_block<T, Rescaled, S, cuda::kMaxQuantizeChunks>(args, t, shape.threads);
    }
  }

  const auto rescale = Rescaled ? Rescale::kVariance : Rescale::kNone;
  std::vector<uint8_t> dense(rows * cols), mask(rows * cols);
  std::vector<float> want_scale(rows);
  cpu::quantize_rows(
      {x.data(), args.smooth, args.scale, dense.data(), want_scale.data(), rows, cols, kPattern, dtype, rescale, type},
      0, rows);
  cpu::prune_rows({x.data(), args.scale, nullptr, mask.data(), rows, cols, kPattern, dtype, Rescale::kNone}, 0, rows);
  std::vector<uint8_t> wide(rows * wide_cols), wide_mask(rows * wide_cols);
  ASSERT_EQ(cpu::widen(dense.data(), mask.data(), rows, cols, 1, kExtra, wide.data(), wide_mask.data()), Status::kOk);
  std::vector<uint8_t> want_values(rows * wide_cols / 2), want_metadata(metadata.size() * 4);
  ASSERT_EQ(cpu::compress_2_4(wide.data(), wide_mask.data(), rows, wide_cols, 1, layout, want_values.data(),
                              want_metadata.data()),
            Status::kOk);
  want_values.resize(values.size(), 0);  // padding rows are zeros
  want_scale.resize(value_rows, 0.0f);
  EXPECT_EQ(values, want_values);
  const auto* bytes = reinterpret_cast<const uint8_t*>(metadata.data());
  EXPECT_EQ(std::vector<uint8_t>(bytes, bytes + metadata.size() * 4), want_metadata);
  for (int64_t t = 0; t < value_rows; ++t) {
    if (std::isnan(want_scale[t])) {
      EXPECT_TRUE(std::isnan(got_scale[t])) << t;
    } else if (Rescaled) {
      EXPECT_NEAR(got_scale[t], want_scale[t], want_scale[t] * 1e-5f) << t;
    } else {
      EXPECT_EQ(got_scale[t], want_scale[t]) << t;
    }
  }
}

template <typename T, cuda::Selection S>
void check_shapes(MetadataLayout layout, const std::vector<int64_t>& all_cols) {
  for (int64_t rows : {1, 31, 65, 100}) {
    for (int64_t cols : all_cols) {
      check<T, false, S>(layout, QuantizedType::kInt8, rows, cols, rows % 2 == 0);
      check<T, true, S>(layout, QuantizedType::kInt8, rows, cols, rows % 2 == 1);
    }
  }
  check<T, false, S>(layout, QuantizedType::kE4m3, 9, 256, true);
  // One chunk a thread up to 16,384 columns, then two.
  for (int64_t cols : {14336, 16384, 18944, 32768}) check<T, true, S>(layout, QuantizedType::kInt8, 2, cols, true);
}

template <typename T, size_t... Index>
void check_patterns(MetadataLayout layout, std::index_sequence<Index...>) {
  const std::vector<int64_t> cols_by_extra[] = {{32, 96, 128, 160, 1056}, {32, 512, 1056}, {32, 256, 1056}};
  (check_shapes<T, Index>(layout, cols_by_extra[kSparsePatterns[Index].extra_windows]), ...);
}

template <typename T>
void check_patterns(MetadataLayout layout) {
  check_patterns<T>(layout, std::make_index_sequence<std::size(kSparsePatterns)>{});
}

TEST(QuantizeCompressLane, Sm90Bf16) { check_patterns<BFloat16>(MetadataLayout::kSm90_8bit); }
TEST(QuantizeCompressLane, Sm90Fp16) { check_patterns<Float16>(MetadataLayout::kSm90_8bit); }
TEST(QuantizeCompressLane, Sm100Bf16) { check_patterns<BFloat16>(MetadataLayout::kSm100_8bit); }
TEST(QuantizeCompressLane, Sm80Bf16) { check_patterns<BFloat16>(MetadataLayout::kSm80_8bit); }
TEST(QuantizeCompressLane, Sm80Fp16) { check_patterns<Float16>(MetadataLayout::kSm80_8bit); }

}  // namespace
