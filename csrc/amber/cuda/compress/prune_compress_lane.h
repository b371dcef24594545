// What one thread of the prune-and-compress kernel does, written for host and device: the test runs
// the very same code over every block and thread on the CPU and holds it against cpu::compress_2_4.
#pragma once

#include "amber/cuda/compress/compress_columns.h"
#include "amber/cuda/compress/prune_compress_args.h"

namespace amber::cuda {

// A warp covers 8 lanes of columns by 32 rows: lanes of one column group take rows r, r + 8 of a group of
// 16, which lie side by side in SM90's E, so a lane stores both of their words of E at once and a warp's
// stores fill whole 32-byte sectors.
inline constexpr int kLanesAlongK = 8;
inline constexpr int kWarpRows = 32;
inline constexpr int kWarps = 4;

// Columns of a lane.
template <Selection S>
inline constexpr int kLaneColumns = kExtraWindows<S> == 0 ? kCompressColumns : kCompressCopiesColumns;
template <Selection S>
inline constexpr int kLaneGroups = kLaneColumns<S> / kWindowColumns;

// What a lane makes of one row.
template <Selection S>
struct LaneRow {
  Words4 values[kLaneGroups<S>];
  Words4 copies;                     // a pair for each group's extra windows
  uint32_t nibbles[kLaneGroups<S>];  // of the columns, 16 bits each
  uint32_t copies_nibbles;
};

// The columns at x; null stands for padding.
template <typename T, Selection S>
AMBER_HOST_DEVICE LaneRow<S> compress_lane_row(const uint16_t* x, const float* scale) {
  constexpr int kExtra = kExtraWindows<S>;
  LaneRow<S> row = {};
  row.copies_nibbles = x ? 0 : kPaddingNibbles;
  AMBER_UNROLL
  for (int group = 0; group < kLaneGroups<S>; ++group) {
    row.nibbles[group] = kPaddingNibbles & 0xffffu;
    if (!x) continue;
    const Words4 part[2] = {load_streaming(x + 16 * group), load_streaming(x + 16 * group + 8)};
    uint32_t word[8];
    AMBER_UNROLL
    for (int i = 0; i < 8; ++i) word[i] = part[i / 4].word[i % 4];
    const Compressed16<S> kept = compress_16_columns<T, S>(word, scale + 16 * group);
    AMBER_UNROLL
    for (int quad = 0; quad < kQuads; ++quad) row.values[group].word[quad] = kept.pair[quad];
    AMBER_UNROLL
    for (int window = 0; window < kExtra; ++window) {
      row.copies.word[group * kExtra + window] = kept.pair[kQuads + window];
    }
    row.nibbles[group] = kept.nibbles & 0xffffu;
    row.copies_nibbles |= (kept.nibbles >> 16) << (4 * kExtra * group);
  }
  return row;
}

template <Selection S>
AMBER_HOST_DEVICE void store_lane_values(const PruneCompressArgs& args, int64_t t, int64_t k, const LaneRow<S>& row) {
  constexpr int kExtra = kExtraWindows<S>;
  auto* values = static_cast<uint16_t*>(args.values) + t * (widened_cols(args.cols, kExtra) / 2);
  AMBER_UNROLL
  for (int group = 0; group < kLaneGroups<S>; ++group) {
    store_16_bytes(values + k / 2 + 8 * group, row.values[group]);
  }
  if constexpr (kExtra > 0) store_copies<2 * kExtra>(values + copies_begin(k, args.cols, kExtra) / 2, row.copies);
}

template <MetadataLayout Layout, Selection S>
AMBER_HOST_DEVICE void store_lane_metadata(const PruneCompressArgs& args, int64_t t, int64_t k, int64_t padded_rows,
                                           const LaneRow<S> (&row)[2]) {
  constexpr int kExtra = kExtraWindows<S>;
  AMBER_UNROLL
  for (int group = 0; group < kLaneGroups<S>; ++group) {
    const int64_t column = k + group * kWindowColumns;
    if constexpr (Layout == MetadataLayout::kSm90_16bit) {
      *reinterpret_cast<uint32_t*>(args.metadata + sm90_16bit_byte(t, column, padded_rows)) =
          row[0].nibbles[group] | row[1].nibbles[group] << 16;
    } else {
      auto* words = reinterpret_cast<uint16_t*>(args.metadata);
      words[sm80_word(t, column / 16, padded_rows, 32)] = static_cast<uint16_t>(row[0].nibbles[group]);
      words[sm80_word(t + 8, column / 16, padded_rows, 32)] = static_cast<uint16_t>(row[1].nibbles[group]);
    }
  }
  if constexpr (kExtra > 0) {
    const int64_t copies = copies_begin(k, args.cols, kExtra);
    store_copies_metadata<kExtra>(args.metadata, Layout, t, copies, padded_rows, row[0].copies_nibbles);
    store_copies_metadata<kExtra>(args.metadata, Layout, t + 8, copies, padded_rows, row[1].copies_nibbles);
  }
}

// Columns that the lanes cover, padding included.
template <MetadataLayout Layout, Selection S>
AMBER_HOST_DEVICE int64_t covered_cols(int64_t cols) {
  return kExtraWindows<S> == 0 ? metadata_cols(Layout, cols) : padded_cols(cols, kExtraWindows<S>);
}

template <typename T, MetadataLayout Layout, Selection S>
AMBER_HOST_DEVICE void prune_compress_lane(const PruneCompressArgs& args, int64_t block_x, int64_t block_y,
                                           int thread) {
  constexpr int kColumns = kLaneColumns<S>;
  const int lane = thread % 32;
  const int64_t k = ((block_x * kWarps + thread / 32) * kLanesAlongK + lane % kLanesAlongK) * kColumns;
  const int64_t padded_rows = metadata_rows(Layout, args.rows);
  if (k >= covered_cols<Layout, S>(args.cols)) return;
  const bool inside = k < args.cols;
  // Padding columns beyond K have values only where there are copies: K' counts them.
  const bool has_values = inside || kExtraWindows<S> > 0;

  float scale[kColumns];
  AMBER_UNROLL
  for (int i = 0; i < kColumns; ++i) scale[i] = 1.0f;
  if (args.scale && inside) {
    AMBER_UNROLL
    for (int i = 0; i < kColumns; i += 4) load_4_floats(args.scale + k + i, scale + i);
  }

  const auto* x = static_cast<const uint16_t*>(args.x);
  AMBER_UNROLL
  for (int step = 0; step < 4; ++step) {
    const int64_t t = block_y * kWarpRows + lane / kLanesAlongK + step / 2 * 16 + step % 2 * 4;
    LaneRow<S> row[2];
    AMBER_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int64_t at = t + 8 * half;
      row[half] = compress_lane_row<T, S>(inside && at < args.rows ? x + at * args.cols + k : nullptr, scale);
      if (has_values && at < args.value_rows) store_lane_values(args, at, k, row[half]);
    }
    if (t < padded_rows) store_lane_metadata<Layout>(args, t, k, padded_rows, row);
  }
}

// Blocks along K and along the rows.
struct CompressGrid {
  int64_t x;
  int64_t y;
};

template <MetadataLayout Layout, Selection S>
inline CompressGrid compress_grid(const PruneCompressArgs& args) {
  const int64_t padded_rows = metadata_rows(Layout, args.rows);
  const int64_t rows = args.value_rows > padded_rows ? args.value_rows : padded_rows;
  constexpr int kBlockColumns = kWarps * kLanesAlongK * kLaneColumns<S>;
  return {(covered_cols<Layout, S>(args.cols) + kBlockColumns - 1) / kBlockColumns, (rows + kWarpRows - 1) / kWarpRows};
}

}  // namespace amber::cuda
