#include "amber/cpu/compress/compress.h"

#include <cstring>

namespace amber::cpu {
namespace {

constexpr uint32_t kPaddingNibble = 0x4;  // indices {0, 1}: valid for mma.sp, values are zero anyway

Status validate(int64_t rows, int64_t cols, int element_bytes, MetadataLayout layout, const void* a, const void* b,
                const void* c) {
  const bool wide = is_16bit(layout);
  if (element_bytes != (wide ? 2 : 1)) return Status::kElementSizeMismatch;
  if (rows < 0 || cols < 0) return Status::kNegativeSize;
  if (cols % 4 != 0) return Status::kColsNotMultipleOfM;
  if (rows > 0 && cols > 0 && (!a || !b || !c)) return Status::kNullPointer;
  return Status::kOk;
}

}  // namespace

Status compress_2_4(const void* x, const uint8_t* mask, int64_t rows, int64_t cols, int element_bytes,
                    MetadataLayout layout, void* values, uint8_t* metadata) {
  const Status status = validate(rows, cols, element_bytes, layout, x, mask, values);
  if (status != Status::kOk) return status;
  const int64_t padded_rows = metadata_rows(layout, rows);
  std::memset(metadata, kPaddingNibble | (kPaddingNibble << 4), metadata_bytes(layout, rows, cols));

  const auto* in = static_cast<const uint8_t*>(x);
  auto* out = static_cast<uint8_t*>(values);
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t k = 0; k < cols; k += 4) {
      const int64_t at = t * cols + k;
      uint32_t quad_mask = 0;
      for (int i = 0; i < 4; ++i) quad_mask |= static_cast<uint32_t>(mask[at + i] != 0) << i;
      if (__builtin_popcount(quad_mask) != 2) return Status::kMaskNotTwoOfFour;

      const uint32_t nibble = metadata_nibble(quad_mask);
      const NibbleAddress address = nibble_address(layout, t, k, padded_rows);
      metadata[address.byte] =
          static_cast<uint8_t>((metadata[address.byte] & ~(0xfu << address.shift)) | (nibble << address.shift));
      for (int slot = 0; slot < 2; ++slot) {
        const int64_t column = (nibble >> (2 * slot)) & 3u;
        std::memcpy(out + (at / 2 + slot) * element_bytes, in + (at + column) * element_bytes, element_bytes);
      }
    }
  }
  return Status::kOk;
}

Status decompress_2_4(const void* values, const uint8_t* metadata, int64_t rows, int64_t cols, int element_bytes,
                      MetadataLayout layout, void* x) {
  const Status status = validate(rows, cols, element_bytes, layout, values, metadata, x);
  if (status != Status::kOk) return status;
  const int64_t padded_rows = metadata_rows(layout, rows);

  const auto* in = static_cast<const uint8_t*>(values);
  auto* out = static_cast<uint8_t*>(x);
  if (rows > 0) std::memset(out, 0, rows * cols * element_bytes);
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t k = 0; k < cols; k += 4) {
      const int64_t at = t * cols + k;
      const NibbleAddress address = nibble_address(layout, t, k, padded_rows);
      const uint32_t nibble = (metadata[address.byte] >> address.shift) & 0xfu;
      for (int slot = 0; slot < 2; ++slot) {
        const int64_t column = (nibble >> (2 * slot)) & 3u;
        std::memcpy(out + (at + column) * element_bytes, in + (at / 2 + slot) * element_bytes, element_bytes);
      }
    }
  }
  return Status::kOk;
}

}  // namespace amber::cpu
