// What one thread of the prune-and-compress kernel does, written for host and device: the test runs
// the very same code over every block and thread on the CPU and holds it against cpu::compress_2_4.
#pragma once

#include "amber/cuda/compress_quad.h"
#include "amber/cuda/prune_compress_args.h"

namespace amber::cuda {

// A warp covers 128 columns (8 lanes of 16) of 32 rows: lanes of one column group take rows
// r, r + 8 of a group of 16, which lie side by side in SM90's E, so a lane stores both of their words
// of E at once and a warp's stores fill whole 32-byte sectors.
inline constexpr int kLanesAlongK = 8;
inline constexpr int kWarpColumns = kLanesAlongK * kCompressColumns;
inline constexpr int kWarpRows = 32;
inline constexpr int kWarps = 4;
inline constexpr uint32_t kPaddingWord = 0x4444;  // indices {0, 1} in every quad

// 16 columns of one row: 8 values, and the word of E as the result.
template <typename T>
AMBER_HOST_DEVICE uint32_t compress_16_columns(const uint16_t* x, const float* scale, Words4& values) {
  const Words4 parts[2] = {load_streaming(x), load_streaming(x + 8)};
  uint32_t metadata = 0;
  AMBER_UNROLL
  for (int quad = 0; quad < 4; ++quad) {
    const Words4& part = parts[quad / 2];
    uint32_t nibble;
    values.word[quad] = compress_quad<T>(part.word[quad % 2 * 2], part.word[quad % 2 * 2 + 1],
                                         scale + 4 * quad, nibble);
    metadata |= nibble << (4 * quad);
  }
  return metadata;
}

template <typename T, MetadataLayout Layout>
AMBER_HOST_DEVICE void prune_compress_lane(const PruneCompressArgs& args, int64_t block_x,
                                           int64_t block_y, int thread) {
  const int lane = thread % 32;
  const int64_t k =
      (block_x * kWarps + thread / 32) * kWarpColumns + lane % kLanesAlongK * kCompressColumns;
  const int64_t padded_rows = metadata_rows(Layout, args.rows);
  if (k >= metadata_cols(Layout, args.cols)) return;
  const bool inside = k < args.cols;

  float scale[16];
  AMBER_UNROLL
  for (int i = 0; i < 16; ++i) scale[i] = 1.0f;
  if (args.scale && inside) {
    AMBER_UNROLL
    for (int i = 0; i < 16; i += 4) load_4_floats(args.scale + k + i, scale + i);
  }

  const auto* x = static_cast<const uint16_t*>(args.x);
  auto* out = static_cast<uint16_t*>(args.values);
  AMBER_UNROLL
  for (int step = 0; step < 4; ++step) {
    const int64_t t = block_y * kWarpRows + lane / kLanesAlongK + step / 2 * 16 + step % 2 * 4;
    uint32_t metadata[2];
    AMBER_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int64_t row = t + 8 * half;
      Words4 values = {};
      metadata[half] = kPaddingWord;
      if (inside && row < args.rows) {
        metadata[half] = compress_16_columns<T>(x + row * args.cols + k, scale, values);
      }
      if (inside && row < args.value_rows) store_16_bytes(out + (row * args.cols + k) / 2, values);
    }
    if (t >= padded_rows) continue;
    if constexpr (Layout == MetadataLayout::kSm90_16bit) {
      *reinterpret_cast<uint32_t*>(args.metadata + sm90_16bit_byte(t, k, padded_rows)) =
          metadata[0] | metadata[1] << 16;
    } else {
      auto* words = reinterpret_cast<uint16_t*>(args.metadata);
      words[sm80_word(t, k / 16, padded_rows, 32)] = static_cast<uint16_t>(metadata[0]);
      words[sm80_word(t + 8, k / 16, padded_rows, 32)] = static_cast<uint16_t>(metadata[1]);
    }
  }
}

// Blocks along K and along the rows.
struct CompressGrid {
  int64_t x;
  int64_t y;
};

template <MetadataLayout Layout>
inline CompressGrid compress_grid(const PruneCompressArgs& args) {
  const int64_t padded_rows = metadata_rows(Layout, args.rows);
  const int64_t rows = args.value_rows > padded_rows ? args.value_rows : padded_rows;
  return {(metadata_cols(Layout, args.cols) + kWarps * kWarpColumns - 1) / (kWarps * kWarpColumns),
          (rows + kWarpRows - 1) / kWarpRows};
}

}  // namespace amber::cuda
