// What one thread of the quantise-and-compress kernel does before and after the reduction over its
// row, written for host and device: the test runs the very same code over every thread on the CPU.
//
// A block owns a row. Between the two steps a thread keeps its survivors in registers, so X is read
// once.
#pragma once

#include "amber/cuda/compress/compress_columns.h"
#include "amber/cuda/compress/quantize_compress_args.h"
#include "amber/cuda/compress/quantize_quads.h"
#include "amber/cuda/compress/sources/stored_rows.h"
#include "amber/rescale.h"

namespace amber::cuda {

inline constexpr int kChunkGroups = kQuantizeColumns / kWindowColumns;

// Survivors of 32 columns: of window layouts before they are smoothed, in 16 bits, for they are many.
template <Selection S>
struct GroupsChunk {
  Compressed16<S> group[kChunkGroups];
};

template <Selection S>
using QuantizeChunk = std::conditional_t<kExtraWindows<S> == 0, QuadsChunk, GroupsChunk<S>>;

// Sums over a token, before and after pruning. In fp32 within a thread, in fp64 across the block: good
// to about 1e-6 where the mean is not far larger than the spread.
struct Moments {
  double sum, squares, kept_sum, kept_squares;
};

struct RowPart {
  uint32_t absmax_bits = 0;
  Moments moments = {};
};

AMBER_HOST_DEVICE void load_factors(const float* factors, int64_t k, float (&four)[4]) {
  four[0] = four[1] = four[2] = four[3] = 1.0f;
  if (factors) load_4_floats(factors + k, four);
}

// The factors of a window's four columns, in the 16 columns from k on.
AMBER_HOST_DEVICE void load_window_factors(const float* factors, int64_t k, int window, float (&four)[4]) {
  if (window < kQuads) return load_factors(factors, k + 4 * window, four);
  AMBER_UNROLL
  for (int i = 0; i < 4; ++i) four[i] = factors ? factors[k + 4 * i + copied_column(window - kQuads)] : 1.0f;
}

struct WindowValues {
  float value[2];
};

// The kept values of one window in fp32, times `smooth` [4].
template <typename T, Selection S>
AMBER_HOST_DEVICE WindowValues smooth_window(const Compressed16<S>& kept, int window, const float (&smooth)[4]) {
  const uint32_t nibble = kept.nibbles >> (4 * window) & 0xfu, first = nibble & 3u, second = nibble >> 2;
  const uint32_t pair = kept.pair[window];
  return {{widen(T{static_cast<uint16_t>(pair & 0xffffu)}) * (first == 0   ? smooth[0]
                                                              : first == 1 ? smooth[1]
                                                                           : smooth[2]),
           widen(T{static_cast<uint16_t>(pair >> 16)}) * (second == 1   ? smooth[1]
                                                          : second == 2 ? smooth[2]
                                                                        : smooth[3])}};
}

// 16 columns from k on of row t; `part` takes in what the row's reduction needs.
template <typename T, bool Rescaled, Selection S>
AMBER_HOST_DEVICE Compressed16<S> select_16_columns(const QuantizeCompressArgs& args, int64_t k,
                                                    const Words4 (&loaded)[2], RowPart& part) {
  uint32_t word[8];
  AMBER_UNROLL
  for (int i = 0; i < 8; ++i) word[i] = loaded[i / 4].word[i % 4];
  float scale[kWindowColumns];
  AMBER_UNROLL
  for (int quad = 0; quad < kQuads; ++quad) {
    load_factors(args.scale, k + 4 * quad, reinterpret_cast<float (&)[4]>(scale[4 * quad]));
  }
  const Compressed16<S> kept = compress_16_columns<T, S>(word, scale);

  float sum = 0.0f, squares = 0.0f, kept_sum = 0.0f, kept_squares = 0.0f;
  AMBER_UNROLL
  for (int window = 0; window < kQuads + kExtraWindows<S>; ++window) {
    float smooth[4];
    load_window_factors(args.smooth, k, window, smooth);
    const WindowValues values = smooth_window<T>(kept, window, smooth);
    for (float value : values.value) {
      part.absmax_bits = max_magnitude(part.absmax_bits, value);
      if constexpr (Rescaled) kept_sum += value, kept_squares += value * value;
    }
    if constexpr (Rescaled) {
      AMBER_UNROLL
      for (int i = 0; i < (window < kQuads ? 4 : 0); ++i) {
        const uint32_t two = word[2 * window + i / 2];
        const float v = widen(T{static_cast<uint16_t>(i % 2 ? two >> 16 : two & 0xffffu)}) * smooth[i];
        sum += v, squares += v * v;
      }
    }
  }
  if constexpr (Rescaled) {
    part.moments.sum += sum, part.moments.squares += squares;
    part.moments.kept_sum += kept_sum, part.moments.kept_squares += kept_squares;
  }
  return kept;
}

// Columns k .. k + 31 of row t.
template <typename T, bool Rescaled, Selection S, typename Source>
AMBER_HOST_DEVICE void select_chunk(const QuantizeCompressArgs& args, int64_t t, int64_t k, GroupsChunk<S>& chunk,
                                    RowPart& part) {
  const Source x = Source::from(args, t * args.cols + k);
  // One group after the other, or both together would spill; so the group's number is no constant, and
  // every register of the chunk is assigned under a condition.
  AMBER_DO_NOT_UNROLL
  for (int group = 0; group < kChunkGroups; ++group) {
    const typename Source::Loaded loaded[2] = {Source::load(x, 16 * group), Source::load(x, 16 * group + 8)};
    const Words4 words[2] = {Source::words(loaded[0]), Source::words(loaded[1])};
    const Compressed16<S> kept = select_16_columns<T, Rescaled, S>(args, k + 16 * group, words, part);
    AMBER_UNROLL
    for (int i = 0; i < kChunkGroups; ++i) {
      if (i == group) chunk.group[i] = kept;
    }
  }
}

template <typename T, bool Rescaled, Selection S, typename Source>
AMBER_HOST_DEVICE void select_chunk(const QuantizeCompressArgs& args, int64_t t, int64_t k, QuadsChunk& chunk,
                                    RowPart& part) {
  const Source x = Source::from(args, t * args.cols + k);
  const float* scale = factors_or_ones(args.scale, k);
  const float* smooth = factors_or_ones(args.smooth, k);
  QuadsSums sums;
  chunk.nibbles = 0;
  // All loads first; of rows that are made of several tensors as many as take the same registers.
  constexpr int kParts = kChunkQuads / 2 / Source::kTensors;
  AMBER_UNROLL
  for (int begin = kChunkQuads / 2 - kParts; begin >= 0; begin -= kParts) {
    typename Source::Loaded loaded[kParts];
    AMBER_UNROLL
    for (int i = 0; i < kParts; ++i) loaded[i] = Source::load(x, 8 * (begin + i));
    Words4 four;
    AMBER_UNROLL
    for (int quad = 2 * (begin + kParts) - 1; quad >= 2 * begin; --quad) {
      if (quad % 2 == 1) four = Source::words(loaded[quad / 2 - begin]);
      const uint32_t* words = four.word + quad % 2 * 2;
      float* kept = chunk.value + 2 * quad;
      const uint32_t outcome =
          select_quad<T, Rescaled>({words[0], words[1]}, scale + 4 * quad, smooth + 4 * quad, kept, sums);
      chunk.nibbles = push_nibble(chunk.nibbles, outcome);
      part.absmax_bits = max_magnitude(max_magnitude(part.absmax_bits, kept[0]), kept[1]);
    }
  }
  if constexpr (Rescaled) {
    part.moments.sum += sums.sum, part.moments.squares += sums.squares;
    part.moments.kept_sum += sums.kept_sum, part.moments.kept_squares += sums.kept_squares;
  }
}

AMBER_HOST_DEVICE float rescale_factor(const Moments& m, int64_t cols) {
  const double count = static_cast<double>(cols);
  const double mean = m.sum / count, kept_mean = m.kept_sum / count;
  return amber::rescale_factor(m.squares / count - mean * mean, m.kept_squares / count - kept_mean * kept_mean);
}

// The nibbles of a chunk, or of padding.
template <Selection S>
AMBER_HOST_DEVICE void store_chunk_metadata(const QuantizeCompressArgs& args, int64_t t, int64_t k, int64_t padded_rows,
                                            const QuantizeChunk<S>& chunk, bool filled) {
  constexpr int kExtra = kExtraWindows<S>;
  uint32_t columns = kPaddingNibbles, copies = kPaddingNibbles;
  if (filled) {
    if constexpr (kExtra == 0) {
      columns = chunk.nibbles;
    } else {
      columns = (chunk.group[0].nibbles & 0xffffu) | chunk.group[1].nibbles << 16;
      copies = (chunk.group[0].nibbles >> 16) | (chunk.group[1].nibbles >> 16) << (4 * kExtra);
    }
  }
  if (!is_sm80(args.layout)) {
    *reinterpret_cast<uint32_t*>(args.metadata + sm90_8bit_byte(t, k, padded_rows)) = columns;
  } else {
    reinterpret_cast<uint32_t*>(args.metadata)[sm80_word(t, k / 32, padded_rows, 16)] = columns;
  }
  if constexpr (kExtra > 0) {
    store_copies_metadata<kExtra>(args.metadata, args.layout, t, copies_begin(k, args.cols, kExtra), padded_rows,
                                  copies);
  }
}

// The values of a chunk in 8 bits.
struct ChunkBytes {
  Words4 columns, copies;
};

template <typename T, QuantizedType Type, Selection S>
AMBER_HOST_DEVICE ChunkBytes quantize_chunk(const QuantizeCompressArgs& args, int64_t k, float inverse,
                                            const GroupsChunk<S>& chunk) {
  constexpr int kExtra = kExtraWindows<S>;
  ChunkBytes bytes = {};
  AMBER_UNROLL
  for (int group = 0; group < kChunkGroups; ++group) {
    AMBER_UNROLL
    for (int window = 0; window < kQuads + kExtra; ++window) {
      float smooth[4];
      load_window_factors(args.smooth, k + group * kWindowColumns, window, smooth);
      const WindowValues kept = smooth_window<T>(chunk.group[group], window, smooth);
      uint32_t two = 0;
      AMBER_UNROLL
      for (int slot = 0; slot < 2; ++slot) {
        const uint32_t byte = Type == QuantizedType::kInt8 ? static_cast<uint8_t>(to_int8(kept.value[slot], inverse))
                                                           : to_e4m3(kept.value[slot], inverse);
        two |= byte << (8 * slot);
      }
      const int pair = window < kQuads ? group * kQuads + window : group * kExtra + window - kQuads;
      (window < kQuads ? bytes.columns : bytes.copies).word[pair / 2] |= two << (16 * (pair % 2));
    }
  }
  return bytes;
}

template <typename T, QuantizedType Type, Selection S>
AMBER_HOST_DEVICE ChunkBytes quantize_chunk(const QuantizeCompressArgs&, int64_t, float inverse,
                                            const QuadsChunk& chunk) {
  return {quantize_quads<Type>(chunk, inverse), {}};
}

// The values of a chunk, or of padding.
template <typename T, QuantizedType Type, Selection S>
AMBER_HOST_DEVICE void store_chunk_values(const QuantizeCompressArgs& args, int64_t t, int64_t k, float inverse,
                                          const QuantizeChunk<S>& chunk, bool filled) {
  constexpr int kExtra = kExtraWindows<S>;
  ChunkBytes bytes = {};
  if (filled) bytes = quantize_chunk<T, Type, S>(args, k, inverse, chunk);
  auto* values = static_cast<uint8_t*>(args.values) + t * (widened_cols(args.cols, kExtra) / 2);
  store_16_bytes(values + k / 2, bytes.columns);
  if constexpr (kExtra > 0) store_copies<kExtra>(values + copies_begin(k, args.cols, kExtra) / 2, bytes.copies);
}

// Rows that a launch covers, each by one block, and the columns that E covers.
inline int64_t quantize_blocks(const QuantizeCompressArgs& args) {
  const int64_t padded_rows = metadata_rows(args.layout, args.rows);
  return args.value_rows > padded_rows ? args.value_rows : padded_rows;
}

// Threads of a block: whole warps, each thread with 1 or 2 chunks.
struct QuantizeThreads {
  int threads;
  int chunks;
};

// Columns that the threads cover, padding included.
AMBER_HOST_DEVICE int64_t covered_cols(const QuantizeCompressArgs& args, int extra) {
  return extra == 0 ? metadata_cols(args.layout, args.cols) : padded_cols(args.cols, extra);
}

inline QuantizeThreads quantize_threads(const QuantizeCompressArgs& args) {
  const int64_t chunks = covered_cols(args, extra_windows(args.pattern)) / kQuantizeColumns;
  const int64_t per_thread = (chunks + kMaxQuantizeThreads - 1) / kMaxQuantizeThreads;
  const int64_t threads = (chunks + per_thread - 1) / per_thread;
  return {static_cast<int>(round_up(threads, 32)), static_cast<int>(per_thread)};
}

AMBER_HOST_DEVICE int64_t chunk_column(int chunk, int thread, int threads) {
  // Unsigned, so that the compiler knows it for positive: divisions by powers of two are shifts then.
  return static_cast<uint32_t>(chunk * threads + thread) * static_cast<uint32_t>(kQuantizeColumns);
}

// The first step: all chunks of one thread.
template <typename T, bool Rescaled, Selection S, typename Source = StoredRows<T>, int Chunks>
AMBER_HOST_DEVICE RowPart quantize_lane_select(const QuantizeCompressArgs& args, int64_t t, int thread, int threads,
                                               QuantizeChunk<S> (&chunk)[Chunks]) {
  RowPart part;
  AMBER_UNROLL
  for (int i = 0; i < Chunks; ++i) {
    const int64_t k = chunk_column(i, thread, threads);
    if (t < args.rows && k < args.cols) select_chunk<T, Rescaled, S, Source>(args, t, k, chunk[i], part);
  }
  return part;
}

// The second step, with the units of the whole row.
template <typename T, QuantizedType Type, Selection S, int Chunks>
AMBER_HOST_DEVICE void quantize_lane_store(const QuantizeCompressArgs& args, int64_t t, int thread, int threads,
                                           const QuantizeChunk<S> (&chunk)[Chunks], float inverse) {
  const int64_t padded_rows = metadata_rows(args.layout, args.rows);
  // Padding columns beyond K have values only where there are copies: K' counts them.
  const int64_t value_cols = kExtraWindows<S> == 0 ? args.cols : covered_cols(args, kExtraWindows<S>);
  AMBER_UNROLL
  for (int i = 0; i < Chunks; ++i) {
    const int64_t k = chunk_column(i, thread, threads);
    if (k >= covered_cols(args, kExtraWindows<S>)) continue;
    const bool filled = t < args.rows && k < args.cols;
    if (k < value_cols && t < args.value_rows) store_chunk_values<T, Type, S>(args, t, k, inverse, chunk[i], filled);
    if (t < padded_rows) store_chunk_metadata<S>(args, t, k, padded_rows, chunk[i], filled);
  }
}

}  // namespace amber::cuda
