// What the compressing kernels move, counted: each byte of X once, nothing beyond the result, in whole sectors.
#include "cases/compress.h"
#include "emulated.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

// Rows fill whole blocks of every layout's E, columns need no padding for any pattern.
constexpr int64_t kRows = 512, kCols = 4096;

gpu_emulator::LaunchCounts counts_of(const CompressCase& which, bool with_factors) {
  const CompressShape shape{kRows, kCols, kRows, with_factors, with_factors, false, 0};
  const int64_t wide = widened_cols(kCols, which.sparse.extra_windows);
  const DeviceArray<BFloat16> x(random_normal<BFloat16>(kRows * kCols, 1));
  const DeviceArray<float> factors(random_factors(kCols, 2)), smooth(random_factors(kCols, 3)), token_scale(kRows);
  const DeviceArray<uint8_t> values(kRows * wide / 2 * (which.quantized() ? 1 : 2)),
      metadata(metadata_bytes(which.layout, kRows, wide));
  check(
      compress(which, shape, {x.get(), factors.get(), smooth.get(), values.get(), metadata.get(), token_scale.get()}));
  check(cudaDeviceSynchronize());
  return gpu_emulator::last_launch();
}

double within_one_percent(double ideal) { return ideal / 100; }

// Warps' requests to store: a lane stores its values 16 bytes at a time, E and copies as the layout lets it.
uint64_t least_store_requests(const CompressCase& which) {
  const uint64_t lanes = kRows * kCols / 32;  // of a warp; what is below is for each of them
  const int extra = which.sparse.extra_windows;
  if (which.quantized()) {
    // 16 bytes of values and 4 of E for 32 columns, as much again for copies; a token's scale.
    return lanes / 32 * (extra > 0 ? 4 : 2) + kRows;
  }
  // 16 bytes of values for 16 columns; 4 bytes of E for two rows of them. Copies of 32 columns: their values, and their
  // E, which of two windows' copies is one store for two rows, of one window's a byte for each.
  const uint64_t copies = extra == 0 ? 0 : extra == 1 ? 2 * lanes / 32 : lanes / 32 + lanes / 64;
  return lanes / 16 + lanes / 32 + copies;
}

// The share of the touched 32-byte sectors that one request asks for. Whole sectors for 16-bit 2:4 on SM90; elsewhere E
// or the copies' part of it is stored in pieces that only several requests together make whole.
double least_store_efficiency(const CompressCase& which) {
  const int extra = which.sparse.extra_windows;
  switch (which.layout) {
    case MetadataLayout::kSm90_16bit:
    case MetadataLayout::kSm100_16bit:
      return extra == 0 ? 1.0 : extra == 1 ? 0.56 : 0.61;
    case MetadataLayout::kSm80_16bit:
      return extra == 0 ? 0.75 : extra == 1 ? 0.41 : 0.45;
    case MetadataLayout::kSm90_8bit:
    case MetadataLayout::kSm100_8bit:
      return 0.82;
    case MetadataLayout::kSm80_8bit:
      return 0.62;
  }
  return 1.0;
}

class EmulatedBytes : public testing::TestWithParam<CompressCase> {
 protected:
  // Slots for each column of X, half of which hold a value: 1, 1.25 or 1.5.
  double widening() const { return 1.0 + GetParam().sparse.extra_windows / 4.0; }
  // Bytes of values, E and token scales for each element of X.
  double ideal_stored() const {
    const double value = GetParam().quantized() ? 1.0 : 2.0;
    return widening() * (value / 2 + 1.0 / 8) + (GetParam().quantized() ? 4.0 / kCols : 0.0);
  }
};

TEST_P(EmulatedBytes, XIsReadOnceAndTheResultWrittenOnceInWideRequests) {
  const auto counts = counts_of(GetParam(), false);
  const double elements = kRows * kCols;
  // 16 bytes a lane and request. 8 bits at 2:4 load ones in the place of both factors, the same 128 bytes all the time.
  const uint64_t x_requests = kRows * kCols / 8 / 32;
  const uint64_t ones_requests = GetParam().quantized() && GetParam().sparse.extra_windows == 0 ? 4 * x_requests : 0;
  const double asked_for = 2.0 + 16.0 * 32 * ones_requests / elements;
  EXPECT_NEAR(counts.global_load.bytes / elements, asked_for, within_one_percent(asked_for));
  EXPECT_NEAR(counts.global_load.distinct_bytes / elements, 2.0, within_one_percent(2.0));
  EXPECT_NEAR(counts.global_store.bytes / elements, ideal_stored(), within_one_percent(ideal_stored()));
  EXPECT_NEAR(counts.global_store.distinct_bytes / elements, ideal_stored(), within_one_percent(ideal_stored()));

  EXPECT_EQ(counts.global_store.requests, least_store_requests(GetParam()));
  EXPECT_GE(counts.global_store.bytes / 32.0 / counts.global_store.sectors, least_store_efficiency(GetParam()));
  // A lane's columns are 32 bytes or more, so each request takes halves of sectors, and the next one the other halves.
  EXPECT_EQ(counts.global_load.requests, x_requests + ones_requests);
  EXPECT_EQ(counts.global_load.sectors, 2 * 2 * kRows * kCols / 32 + ones_requests);
}

TEST_P(EmulatedBytes, FactorsAreTheOnlyOtherBytes) {
  const auto counts = counts_of(GetParam(), true);
  const double elements = kRows * kCols, factors = 4.0 * kCols * (GetParam().quantized() ? 2 : 1);
  EXPECT_EQ(counts.global_load.distinct_bytes, 2 * elements + factors);
  EXPECT_NEAR(counts.global_store.distinct_bytes / elements, ideal_stored(), within_one_percent(ideal_stored()));
}

INSTANTIATE_TEST_SUITE_P(, EmulatedBytes, testing::ValuesIn(compress_cases()), ByName());

}  // namespace
