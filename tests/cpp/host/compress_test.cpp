#include "amber/cpu/compress/compress.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace {

using namespace amber;

struct Case {
  MetadataLayout layout;
  int element_bytes;
};
const Case kCases[] = {{MetadataLayout::kSm80_16bit, 2},  {MetadataLayout::kSm80_8bit, 1},
                       {MetadataLayout::kSm90_16bit, 2},  {MetadataLayout::kSm90_8bit, 1},
                       {MetadataLayout::kSm100_16bit, 2}, {MetadataLayout::kSm100_8bit, 1}};

TEST(Compress, DecompressesToTheMaskedInput) {
  std::mt19937 rng(3);
  for (const Case& c : kCases) {
    for (int64_t rows : {1, 63, 64, 65, 127}) {
      for (int64_t cols : {4, 124, 128, 256, 260}) {
        std::vector<uint8_t> x(rows * cols * c.element_bytes);
        for (auto& byte : x) byte = static_cast<uint8_t>(rng());
        std::vector<uint8_t> mask(rows * cols, 0);
        for (int64_t quad = 0; quad < rows * cols / 4; ++quad) {
          const int first = rng() % 4, second = (first + 1 + rng() % 3) % 4;
          mask[quad * 4 + first] = mask[quad * 4 + second] = 1;
        }
        std::vector<uint8_t> values(x.size() / 2, 0xee);
        std::vector<uint8_t> metadata(metadata_bytes(c.layout, rows, cols), 0xee);
        ASSERT_EQ(cpu::compress_2_4(x.data(), mask.data(), rows, cols, c.element_bytes, c.layout, values.data(),
                                    metadata.data()),
                  Status::kOk);
        std::vector<uint8_t> back(x.size(), 0xee);
        ASSERT_EQ(
            cpu::decompress_2_4(values.data(), metadata.data(), rows, cols, c.element_bytes, c.layout, back.data()),
            Status::kOk);
        for (size_t i = 0; i < x.size(); ++i) {
          ASSERT_EQ(back[i], mask[i / c.element_bytes] ? x[i] : 0) << i;
        }
        // Padding too must hold increasing indices, or mma.sp is undefined there.
        for (uint8_t byte : metadata) {
          for (int shift : {0, 4}) ASSERT_LT((byte >> shift) & 3, (byte >> (shift + 2)) & 3);
        }
      }
    }
  }
}

TEST(Compress, RefusesWhatItCannotDo) {
  uint8_t x[16] = {}, mask[8] = {1, 1, 0, 0, 1, 1, 1, 0}, values[8], metadata[8192];
  const auto layout = MetadataLayout::kSm90_16bit;
  EXPECT_EQ(cpu::compress_2_4(x, mask, 1, 8, 2, layout, values, metadata), Status::kMaskNotTwoOfFour);
  EXPECT_EQ(cpu::compress_2_4(x, mask, 1, 6, 2, layout, values, metadata), Status::kColsNotMultipleOfM);
  EXPECT_EQ(cpu::compress_2_4(x, mask, 1, 8, 1, layout, values, metadata), Status::kElementSizeMismatch);
  EXPECT_EQ(cpu::compress_2_4(nullptr, mask, 1, 8, 2, layout, values, metadata), Status::kNullPointer);
  EXPECT_EQ(cpu::compress_2_4(x, mask, -1, 8, 2, layout, values, metadata), Status::kNegativeSize);
  EXPECT_EQ(cpu::compress_2_4(nullptr, nullptr, 0, 8, 2, layout, nullptr, metadata), Status::kOk);
}

}  // namespace
