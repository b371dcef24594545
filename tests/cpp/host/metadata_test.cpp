#include "amber/metadata.h"

#include <gtest/gtest.h>

#include <set>

namespace {

using amber::MetadataLayout;

TEST(Metadata, NibbleHoldsTheTwoIndices) {
  int pairs = 0;
  for (uint32_t mask = 0; mask < 16; ++mask) {
    if (__builtin_popcount(mask) != 2) continue;
    const uint32_t nibble = amber::metadata_nibble(mask);
    const uint32_t first = nibble & 3, second = nibble >> 2;
    EXPECT_LT(first, second);
    EXPECT_EQ((1u << first) | (1u << second), mask);
    ++pairs;
  }
  EXPECT_EQ(pairs, 6);
}

// Every nibble has a place of its own and together they fill E.
TEST(Metadata, AddressesAreABijection) {
  for (MetadataLayout layout :
       {MetadataLayout::kSm80_16bit, MetadataLayout::kSm80_8bit, MetadataLayout::kSm90_16bit,
        MetadataLayout::kSm90_8bit, MetadataLayout::kSm100_16bit, MetadataLayout::kSm100_8bit}) {
    for (int64_t rows : {1, 64, 65, 200}) {
      for (int64_t cols : {128, 256, 384}) {
        const int64_t padded_rows = amber::metadata_rows(layout, rows);
        const int64_t bytes = amber::metadata_bytes(layout, rows, cols);
        std::set<int64_t> seen;
        for (int64_t t = 0; t < padded_rows; ++t) {
          for (int64_t k = 0; k < cols; k += 4) {
            const auto address = amber::nibble_address(layout, t, k, padded_rows);
            ASSERT_GE(address.byte, 0);
            ASSERT_LT(address.byte, bytes);
            ASSERT_TRUE(seen.insert(address.byte * 2 + address.shift / 4).second) << t << " " << k;
          }
        }
        ASSERT_EQ(static_cast<int64_t>(seen.size()), bytes * 2);
      }
    }
  }
}

TEST(Metadata, TilesOf16RowsLieAlike) {
  for (MetadataLayout layout :
       {MetadataLayout::kSm80_16bit, MetadataLayout::kSm90_16bit, MetadataLayout::kSm100_16bit}) {
    for (int64_t t = 0; t < 192; ++t) {
      const auto tile = static_cast<uint32_t>(t / amber::kMetadataTileRows);
      const int row = static_cast<int>(t % amber::kMetadataTileRows);
      const int64_t from_row_0 = amber::metadata_tile_bytes(layout, tile) + amber::metadata_row_bytes(row);
      for (int64_t k = 0; k < 256; k += 8) {
        ASSERT_EQ(amber::nibble_address(layout, t, k, 192).byte,
                  amber::nibble_address(layout, 0, k, 192).byte + from_row_0)
            << t << " " << k;
      }
    }
  }
}

}  // namespace
