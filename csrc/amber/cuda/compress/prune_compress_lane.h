// What one thread of the prune-and-compress kernel does, written for host and device: the test runs
// the very same code over every block and thread on the CPU and holds it against cpu::compress_2_4.
#pragma once

#include "amber/cuda/compress/compress_columns.h"
#include "amber/cuda/compress/prune_compress_args.h"
#include "amber/cuda/compress/sources/stored_rows.h"

namespace amber::cuda {

// A warp covers 8 lanes of columns, whose scale it keeps in registers, by steps of 8 rows. Of a tile of 16 rows in E
// the first step takes rows 0 to 3 and 8 to 11, the second those after them: a lane has rows t and t + 8, which lie
// side by side in E, so that one store takes both.
inline constexpr int kLanesAlongK = 8;
inline constexpr int kStepRows = 32 / kLanesAlongK;
inline constexpr int kTileSteps = 2;
inline constexpr int kWarps = 4;

// Columns of a lane.
template <Selection S>
inline constexpr int kLaneColumns = kExtraWindows<S> == 0 ? kCompressColumns : kCompressCopiesColumns;
template <Selection S>
inline constexpr int kLaneGroups = kLaneColumns<S> / kWindowColumns;

// Blocks along K and along the rows, and the steps that each warp takes.
struct CompressGrid {
  int64_t x;
  int64_t y;
  int steps;
};

// A lane's columns: of row 0, but for E, which begins at the lane's first row of a tile.
template <Selection S, typename Source>
struct LaneColumns {
  Source x;
  uint16_t* values;
  uint16_t* copies;
  uint8_t* metadata[kLaneGroups<S>];
  uint8_t* copies_metadata;
  float scale[kLaneColumns<S>];
  int row;          // of a tile, the lane's first
  bool inside;      // not padding
  bool has_values;  // padding columns have values only where there are copies: K' counts them
};

// What a lane makes of one row.
template <Selection S>
struct LaneRow {
  Words4 values[kLaneGroups<S>];
  Words4 copies;                     // a pair for each group's extra windows
  uint32_t nibbles[kLaneGroups<S>];  // of the columns, 16 bits each
  uint32_t copies_nibbles;
};

template <Selection S>
AMBER_HOST_DEVICE LaneRow<S> padding_row() {
  LaneRow<S> row = {};
  for (uint32_t& nibbles : row.nibbles) nibbles = kPaddingNibbles & 0xffffu;
  row.copies_nibbles = kPaddingNibbles & ((1u << (4 * kExtraWindows<S> * kLaneGroups<S>)) - 1);
  return row;
}

template <Selection S, typename Source>
struct LoadedRow {
  typename Source::Loaded part[2 * kLaneGroups<S>];
};

template <Selection S, typename Source>
AMBER_HOST_DEVICE LoadedRow<S, Source> load_row(const Source& x, int64_t at) {
  LoadedRow<S, Source> row;
  AMBER_UNROLL
  for (int i = 0; i < 2 * kLaneGroups<S>; ++i) row.part[i] = Source::load(x, at + 8 * i);
  return row;
}

template <typename T, Selection S, typename Source>
AMBER_HOST_DEVICE LaneRow<S> compress_row(const LoadedRow<S, Source>& loaded, const float* scale) {
  constexpr int kExtra = kExtraWindows<S>;
  LaneRow<S> row = {};
  AMBER_UNROLL
  for (int group = 0; group < kLaneGroups<S>; ++group) {
    uint32_t word[8];
    AMBER_UNROLL
    for (int part = 0; part < 2; ++part) {
      const Words4 four = Source::words(loaded.part[2 * group + part]);
      AMBER_UNROLL
      for (int i = 0; i < 4; ++i) word[4 * part + i] = four.word[i];
    }
    const Compressed16<S> kept = compress_16_columns<T, S>(word, scale + 16 * group);
    AMBER_UNROLL
    for (int quad = 0; quad < kQuads; ++quad) row.values[group].word[quad] = kept.pair[quad];
    AMBER_UNROLL
    for (int window = 0; window < kExtra; ++window) {
      row.copies.word[group * kExtra + window] = kept.pair[kQuads + window];
    }
    row.nibbles[group] = kExtra > 0 ? kept.nibbles & 0xffffu : kept.nibbles;
    row.copies_nibbles |= (kept.nibbles >> 16) << (4 * kExtra * group);
  }
  return row;
}

template <Selection S, typename Source>
AMBER_HOST_DEVICE void store_values(const LaneColumns<S, Source>& lane, int64_t at, const LaneRow<S>& row) {
  AMBER_UNROLL
  for (int group = 0; group < kLaneGroups<S>; ++group) {
    store_16_bytes(lane.values + at + 8 * group, row.values[group]);
  }
  if constexpr (kExtraWindows<S> > 0) store_copies<2 * kExtraWindows<S>>(lane.copies + at, row.copies);
}

// E of rows t and t + 8, 16 bits each.
template <Selection S>
struct StepMetadata {
  uint32_t columns[kLaneGroups<S>];
  uint32_t copies;
};

template <Selection S>
AMBER_HOST_DEVICE void push_row(StepMetadata<S>& metadata, const LaneRow<S>& row) {
  AMBER_UNROLL
  for (int group = 0; group < kLaneGroups<S>; ++group) {
    metadata.columns[group] = metadata.columns[group] >> 16 | row.nibbles[group] << 16;
  }
  metadata.copies = metadata.copies >> 16 | row.copies_nibbles << 16;
}

template <Selection S, typename Source>
AMBER_HOST_DEVICE void store_metadata(const LaneColumns<S, Source>& lane, int64_t at, const StepMetadata<S>& metadata) {
  AMBER_UNROLL
  for (int group = 0; group < kLaneGroups<S>; ++group) {
    *reinterpret_cast<uint32_t*>(lane.metadata[group] + at) = metadata.columns[group];
  }
  if constexpr (kExtraWindows<S> == 1) {
    lane.copies_metadata[at] = static_cast<uint8_t>(metadata.copies);
    lane.copies_metadata[at + metadata_row_bytes(8)] = static_cast<uint8_t>(metadata.copies >> 16);
  } else if constexpr (kExtraWindows<S> == 2) {
    *reinterpret_cast<uint32_t*>(lane.copies_metadata + at) = metadata.copies;
  }
}

// Full: no row and no column of the step is padding, so there is nothing to ask.
template <typename T, MetadataLayout Layout, Selection S, bool Full, typename Source>
AMBER_HOST_DEVICE void compress_step(const PruneCompressArgs& args, const LaneColumns<S, Source>& lane, uint32_t step) {
  const uint32_t tile = step / kTileSteps;
  const int row_of_tile = static_cast<int>(step % kTileSteps) * kStepRows;
  const int64_t t = static_cast<int64_t>(tile) * kMetadataTileRows + row_of_tile + lane.row;
  const int64_t value_stride = widened_cols(args.cols, kExtraWindows<S>) / 2;
  // Both rows are loaded first, or one after the other where both together would take too many registers.
  constexpr bool kAtOnce = kExtraWindows<S> == 0 && Source::kTensors == 1;
  StepMetadata<S> metadata = {};
  LoadedRow<S, Source> loaded[2];
  if constexpr (Full && kAtOnce) {
    AMBER_UNROLL
    for (int half = 0; half < 2; ++half) loaded[half] = load_row<S>(lane.x, (t + 8 * half) * args.cols);
  }
  AMBER_UNROLL_BY(kAtOnce ? 2 : 1)
  for (int half = 0; half < 2; ++half) {
    const int64_t at = t + 8 * half;
    LaneRow<S> row;
    if constexpr (Full) {
      row = compress_row<T, S>(kAtOnce ? loaded[half] : load_row<S>(lane.x, at * args.cols), lane.scale);
      store_values(lane, at * value_stride, row);
    } else {
      row = padding_row<S>();
      if (lane.inside && at < args.rows) {
        row = compress_row<T, S>(load_row<S>(lane.x, at * args.cols), lane.scale);
      }
      if (lane.has_values && at < args.value_rows) store_values(lane, at * value_stride, row);
    }
    push_row(metadata, row);
  }
  if (!Full && t >= metadata_rows(Layout, args.rows)) return;
  store_metadata(lane, metadata_tile_bytes(Layout, tile) + metadata_row_bytes(row_of_tile), metadata);
}

// Columns that the lanes cover, padding included.
template <MetadataLayout Layout, Selection S>
AMBER_HOST_DEVICE int64_t covered_cols(int64_t cols) {
  return kExtraWindows<S> == 0 ? metadata_cols(Layout, cols) : padded_cols(cols, kExtraWindows<S>);
}

template <MetadataLayout Layout, Selection S, typename Source>
AMBER_HOST_DEVICE LaneColumns<S, Source> lane_columns(const PruneCompressArgs& args, int64_t k, int row) {
  constexpr int kExtra = kExtraWindows<S>;
  const int64_t padded_rows = metadata_rows(Layout, args.rows);
  const int64_t copies = copies_begin(k, args.cols, kExtra);
  LaneColumns<S, Source> lane;
  lane.x = Source::from(args, k);
  lane.values = static_cast<uint16_t*>(args.values) + k / 2;
  lane.copies = static_cast<uint16_t*>(args.values) + copies / 2;
  uint8_t* metadata = args.metadata + metadata_row_bytes(row);
  AMBER_UNROLL
  for (int group = 0; group < kLaneGroups<S>; ++group) {
    lane.metadata[group] = metadata + nibble_address(Layout, 0, k + group * kWindowColumns, padded_rows).byte;
  }
  lane.copies_metadata = metadata + nibble_address(Layout, 0, copies, padded_rows).byte;
  lane.row = row;
  lane.inside = k < args.cols;
  lane.has_values = lane.inside || kExtra > 0;
  AMBER_UNROLL
  for (int i = 0; i < kLaneColumns<S>; ++i) lane.scale[i] = 1.0f;
  if (args.scale && lane.inside) {
    AMBER_UNROLL
    for (int i = 0; i < kLaneColumns<S>; i += 4) load_4_floats(args.scale + k + i, lane.scale + i);
  }
  return lane;
}

template <typename T, MetadataLayout Layout, Selection S, typename Source = StoredRows<T>>
AMBER_HOST_DEVICE void prune_compress_lane(const PruneCompressArgs& args, int steps, int64_t block_x, int64_t block_y,
                                           int thread) {
  constexpr int kColumns = kLaneColumns<S>;
  const int64_t warp_k = (block_x * kWarps + thread / 32) * kLanesAlongK * kColumns;
  const int64_t k = warp_k + thread % kLanesAlongK * kColumns;
  if (k >= covered_cols<Layout, S>(args.cols)) return;
  const auto lane = lane_columns<Layout, S, Source>(args, k, thread % 32 / kLanesAlongK);

  uint32_t step = static_cast<uint32_t>(block_y) * steps;
  const uint32_t end = step + steps;
  if (warp_k + kLanesAlongK * kColumns <= args.cols) {
    const uint32_t full = static_cast<uint32_t>(args.rows / kMetadataTileRows) * kTileSteps;
    AMBER_DO_NOT_UNROLL
    for (; step < (end < full ? end : full); ++step) compress_step<T, Layout, S, true>(args, lane, step);
  }
  AMBER_DO_NOT_UNROLL
  for (; step < end; ++step) compress_step<T, Layout, S, false>(args, lane, step);
}

// More steps a warp spare loads of the scale, but first come as many warps as a large GPU runs at once.
inline constexpr int64_t kWarpsWanted = 4096;
inline constexpr int kMaxSteps = 8;

template <MetadataLayout Layout, Selection S>
inline CompressGrid compress_grid(const PruneCompressArgs& args) {
  constexpr int64_t kBlockColumns = int64_t{kWarps} * kLanesAlongK * kLaneColumns<S>;
  const int64_t padded_rows = metadata_rows(Layout, args.rows);
  const int64_t rows = args.value_rows > padded_rows ? args.value_rows : padded_rows;
  const int64_t all_steps = (rows + kMetadataTileRows - 1) / kMetadataTileRows * kTileSteps;
  const int64_t blocks = (covered_cols<Layout, S>(args.cols) + kBlockColumns - 1) / kBlockColumns;
  int steps = 1;
  while (steps < kMaxSteps && all_steps / (2 * steps) * blocks * kWarps >= kWarpsWanted) steps *= 2;
  return {blocks, (all_steps + steps - 1) / steps, steps};
}

}  // namespace amber::cuda
