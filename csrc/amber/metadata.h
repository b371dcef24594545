// Metadata E of 2:4 compressed activations: which two of each quad of columns survive, and where
// each quad's nibble lies for the tensor cores of SM80 (mma.sp), SM90 (wgmma.mma_async.sp) and SM100 (tcgen05.mma.sp).
//
// Proven on the host against CuTe's GemmSparseConfig::fill_layoutE and CUTLASS' reorder_meta
// (tests/cpp/metadata_cutlass_test.cpp).
#pragma once

#include <cstdint>

#include "amber/macros.h"

namespace amber {

enum class MetadataLayout {
  kSm80_16bit,   // 16-bit values, mma.sp.m16n8k32
  kSm80_8bit,    // 8-bit values, mma.sp.m16n8k64
  kSm90_16bit,   // 16-bit values, tile K >= 128
  kSm90_8bit,    // 8-bit values, tile K >= 128
  kSm100_16bit,  // as kSm90_16bit, rows padded to 128
  kSm100_8bit,   // as kSm90_8bit, rows padded to 128
};

constexpr AMBER_HOST_DEVICE bool is_16bit(MetadataLayout layout) {
  return layout == MetadataLayout::kSm80_16bit || layout == MetadataLayout::kSm90_16bit ||
         layout == MetadataLayout::kSm100_16bit;
}

constexpr AMBER_HOST_DEVICE bool is_sm80(MetadataLayout layout) {
  return layout == MetadataLayout::kSm80_16bit || layout == MetadataLayout::kSm80_8bit;
}

// A nibble is two increasing 2-bit column indices, the lower one in the low bits.
AMBER_HOST_DEVICE uint32_t metadata_nibble(uint32_t quad_mask) {
  // Index of the lowest and of the highest set bit of a 4-bit mask with two bits set.
  const uint32_t first = (quad_mask & 1u) ? 0u : (quad_mask & 2u) ? 1u : 2u;
  const uint32_t second = (quad_mask & 8u) ? 3u : (quad_mask & 4u) ? 2u : 1u;
  return first | (second << 2);
}

struct NibbleAddress {
  int64_t byte;
  int shift;  // 0 or 4
};

constexpr AMBER_HOST_DEVICE int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// The same for a power of two. Of one that depends on a condition the compiler would make a division.
constexpr AMBER_HOST_DEVICE int64_t round_up_to_power(int64_t value, int64_t power) {
  return (value + power - 1) & -power;
}

// Rows and columns that E covers: the layouts' tiles, padding included.
constexpr AMBER_HOST_DEVICE int64_t metadata_rows(MetadataLayout layout, int64_t rows) {
  const bool sm100 = layout == MetadataLayout::kSm100_16bit || layout == MetadataLayout::kSm100_8bit;
  return round_up_to_power(rows, is_sm80(layout) ? 32 : sm100 ? 128 : 64);
}

constexpr AMBER_HOST_DEVICE int64_t metadata_cols(MetadataLayout layout, int64_t cols) {
  // SM80 interleaves two words of E per row: 2 x 16 columns (16-bit) or 2 x 32 (8-bit).
  return round_up_to_power(cols, layout == MetadataLayout::kSm80_16bit  ? 32
                                 : layout == MetadataLayout::kSm80_8bit ? 64
                                                                        : 128);
}

constexpr AMBER_HOST_DEVICE int64_t metadata_bytes(MetadataLayout layout, int64_t rows, int64_t cols) {
  return metadata_rows(layout, rows) * metadata_cols(layout, cols) / 8;
}

// Byte of E that holds row t, column k (1 bit per logical element), for padded_rows = a multiple
// of 64. 16-bit values: CuTe's TensorEAtom_16bit for a K tile of 128.
AMBER_HOST_DEVICE int64_t sm90_16bit_byte(int64_t t, int64_t k, int64_t padded_rows) {
  return (k / 128) * 16 * padded_rows + (t / 16) * 256 + ((k % 32) / 16) * 128 + (t % 8) * 16 + ((k % 128) / 32) * 4 +
         ((t % 16) / 8) * 2 + (k % 16) / 8;
}

// 8-bit values: CuTe's TensorEAtom_8bit for a K tile of 128.
AMBER_HOST_DEVICE int64_t sm90_8bit_byte(int64_t t, int64_t k, int64_t padded_rows) {
  return (k / 128) * 16 * padded_rows + 16 * t + (k % 128) / 8;
}

// SM80 stores E as words (uint16 for 16-bit values, uint32 for 8-bit ones), column-major with two
// columns interleaved, after CUTLASS' row interweave and 2x2 swizzle that make it ldmatrix-ready. The swizzle
// exchanges the lowest bits of row and column.
AMBER_HOST_DEVICE int64_t sm80_word(int64_t t, int64_t word_col, int64_t padded_rows, int group) {
  const int interweave = group / 8;
  const int64_t row = t / group * group + (t % 8) * interweave + (t % group) / 8;
  return (word_col / 2) * 2 * padded_rows + (row / 2 * 2 + word_col % 2) * 2 + row % 2;
}

// Where the nibble of row t, columns k..k+3 (k a multiple of 4) lies.
AMBER_HOST_DEVICE NibbleAddress nibble_address(MetadataLayout layout, int64_t t, int64_t k, int64_t padded_rows) {
  const int shift = (k % 8) == 4 ? 4 : 0;
  switch (layout) {
    case MetadataLayout::kSm90_16bit:
    case MetadataLayout::kSm100_16bit:
      return {sm90_16bit_byte(t, k, padded_rows), shift};
    case MetadataLayout::kSm90_8bit:
    case MetadataLayout::kSm100_8bit:
      return {sm90_8bit_byte(t, k, padded_rows), shift};
    case MetadataLayout::kSm80_16bit:
      return {sm80_word(t, k / 16, padded_rows, 32) * 2 + (k % 16) / 8, shift};
    case MetadataLayout::kSm80_8bit:
      return {sm80_word(t, k / 32, padded_rows, 16) * 4 + (k % 32) / 8, shift};
  }
  return {0, 0};
}

// In all 16-bit layouts each tile of 16 rows lies alike, and rows t and t + 8 of it lie side by side: from the byte of
// row 0 and some columns to that of row t and the same columns.
inline constexpr int kMetadataTileRows = 16;

AMBER_HOST_DEVICE int64_t metadata_tile_bytes(MetadataLayout layout, uint32_t tile) {
  return !is_sm80(layout) ? static_cast<int64_t>(tile) * 256 : static_cast<int64_t>(tile / 2) * 128 + tile % 2 * 8;
}

constexpr AMBER_HOST_DEVICE int metadata_row_bytes(int row_of_tile) {
  return row_of_tile % 8 * 16 + row_of_tile / 8 * 2;
}

}  // namespace amber
