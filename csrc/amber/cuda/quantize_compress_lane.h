// What one thread of the quantise-and-compress kernel does before and after the reduction over its
// row, written for host and device: the test runs the very same code over every thread on the CPU.
//
// A block owns a row. Between the two steps a thread keeps its survivors in registers, so X is read
// once.
#pragma once

#include <cmath>

#include "amber/cuda/compress_quad.h"
#include "amber/cuda/quantize_compress_args.h"

namespace amber::cuda {

inline constexpr uint32_t kPaddingMetadata = 0x44444444;  // indices {0, 1} in every quad

// Survivors of 32 columns, two a word, and their 8 nibbles.
struct QuantizeChunk {
  uint32_t pair[8];
  uint32_t metadata;
};

// Sums over a token, before and after pruning. In fp32 within a thread, in fp64 across the block: good
// to about 1e-6 where the mean is not far larger than the spread.
struct Moments {
  double sum, squares, kept_sum, kept_squares;
};

struct RowPart {
  uint32_t absmax_bits = 0;
  Moments moments = {};
};

// A quad's survivors in fp32, times `smooth` [4].
template <typename T>
AMBER_HOST_DEVICE void smooth_pair(uint32_t pair, uint32_t nibble, const float* smooth, float (&kept)[2]) {
  const uint32_t first = nibble & 3u, second = nibble >> 2;
  kept[0] = widen(T{static_cast<uint16_t>(pair & 0xffffu)}) *
            (first == 0 ? smooth[0] : first == 1 ? smooth[1] : smooth[2]);
  kept[1] = widen(T{static_cast<uint16_t>(pair >> 16)}) *
            (second == 1 ? smooth[1] : second == 2 ? smooth[2] : smooth[3]);
}

AMBER_HOST_DEVICE void load_factors(const float* factors, int64_t k, float (&four)[4]) {
  four[0] = four[1] = four[2] = four[3] = 1.0f;
  if (factors) load_4_floats(factors + k, four);
}

// Columns k .. k + 31 of row t; `part` takes in what the row's reduction needs.
template <typename T, bool Rescale>
AMBER_HOST_DEVICE void select_chunk(const QuantizeCompressArgs& args, int64_t t, int64_t k,
                                    QuantizeChunk& chunk, RowPart& part) {
  const auto* x = static_cast<const uint16_t*>(args.x) + t * args.cols + k;
  Words4 loaded[4];
  AMBER_UNROLL
  for (int i = 0; i < 4; ++i) loaded[i] = load_streaming(x + 8 * i);

  float sum = 0.0f, squares = 0.0f, kept_sum = 0.0f, kept_squares = 0.0f;
  chunk.metadata = 0;
  AMBER_UNROLL
  for (int quad = 0; quad < 8; ++quad) {
    const uint32_t low = loaded[quad / 2].word[quad % 2 * 2], high = loaded[quad / 2].word[quad % 2 * 2 + 1];
    float scale[4], smooth[4], kept[2];
    load_factors(args.scale, k + 4 * quad, scale);
    load_factors(args.smooth, k + 4 * quad, smooth);
    uint32_t nibble;
    chunk.pair[quad] = compress_quad<T>(low, high, scale, nibble);
    chunk.metadata |= nibble << (4 * quad);
    smooth_pair<T>(chunk.pair[quad], nibble, smooth, kept);
    AMBER_UNROLL
    for (int slot = 0; slot < 2; ++slot) {
      const uint32_t bits = absolute_bits(kept[slot]);
      part.absmax_bits = bits > part.absmax_bits ? bits : part.absmax_bits;
      if constexpr (Rescale) kept_sum += kept[slot], kept_squares += kept[slot] * kept[slot];
    }
    if constexpr (Rescale) {
      const uint32_t element[4] = {low & 0xffffu, low >> 16, high & 0xffffu, high >> 16};
      AMBER_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float v = widen(T{static_cast<uint16_t>(element[i])}) * smooth[i];
        sum += v, squares += v * v;
      }
    }
  }
  if constexpr (Rescale) {
    part.moments.sum += sum, part.moments.squares += squares;
    part.moments.kept_sum += kept_sum, part.moments.kept_squares += kept_squares;
  }
}

// sqrt(var(token) / var(pruned token)); 1 where either variance is 0 or the ratio is not finite.
AMBER_HOST_DEVICE float rescale_factor(const Moments& m, int64_t cols) {
  const double count = static_cast<double>(cols);
  const double mean = m.sum / count, kept_mean = m.kept_sum / count;
  const double ratio = (m.squares / count - mean * mean) / (m.kept_squares / count - kept_mean * kept_mean);
  const bool usable = ratio > 0.0 && ratio < 1e300;
  return usable ? static_cast<float>(sqrt(ratio)) : 1.0f;
}

AMBER_HOST_DEVICE void store_metadata(const QuantizeCompressArgs& args, int64_t t, int64_t k, int64_t padded_rows,
                                      uint32_t metadata) {
  if (args.layout == MetadataLayout::kSm90_8bit) {
    *reinterpret_cast<uint32_t*>(args.metadata + sm90_8bit_byte(t, k, padded_rows)) = metadata;
  } else {
    reinterpret_cast<uint32_t*>(args.metadata)[sm80_word(t, k / 32, padded_rows, 16)] = metadata;
  }
}

AMBER_HOST_DEVICE void store_values(const QuantizeCompressArgs& args, int64_t t, int64_t k, const Words4& values) {
  store_16_bytes(static_cast<uint8_t*>(args.values) + (t * args.cols + k) / 2, values);
}

// The 16 values of a chunk.
template <typename T>
AMBER_HOST_DEVICE Words4 quantize_chunk(const QuantizeCompressArgs& args, int64_t k, const QuantizeChunk& chunk,
                                        float inverse) {
  Words4 values = {};
  AMBER_UNROLL
  for (int quad = 0; quad < 8; ++quad) {
    float smooth[4], kept[2];
    load_factors(args.smooth, k + 4 * quad, smooth);
    smooth_pair<T>(chunk.pair[quad], (chunk.metadata >> (4 * quad)) & 0xfu, smooth, kept);
    AMBER_UNROLL
    for (int slot = 0; slot < 2; ++slot) {
      const uint32_t byte = args.type == QuantizedType::kInt8
                                ? static_cast<uint8_t>(to_int8(kept[slot], inverse))
                                : to_e4m3(kept[slot], inverse);
      values.word[quad / 2] |= byte << (16 * (quad % 2) + 8 * slot);
    }
  }
  return values;
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

inline QuantizeThreads quantize_threads(const QuantizeCompressArgs& args) {
  const int64_t chunks = metadata_cols(args.layout, args.cols) / kQuantizeColumns;
  const int64_t per_thread = (chunks + kMaxQuantizeThreads - 1) / kMaxQuantizeThreads;
  const int64_t threads = (chunks + per_thread - 1) / per_thread;
  return {static_cast<int>(round_up(threads, 32)), static_cast<int>(per_thread)};
}

// The first step: all chunks of one thread.
template <typename T, bool Rescale, int Chunks>
AMBER_HOST_DEVICE RowPart quantize_lane_select(const QuantizeCompressArgs& args, int64_t t, int thread, int threads,
                                               QuantizeChunk (&chunk)[Chunks]) {
  RowPart part;
  AMBER_UNROLL
  for (int i = 0; i < Chunks; ++i) {
    const int64_t k = (static_cast<int64_t>(i) * threads + thread) * kQuantizeColumns;
    if (t < args.rows && k < args.cols) select_chunk<T, Rescale>(args, t, k, chunk[i], part);
  }
  return part;
}

// The second step, with the scale of the whole row.
template <typename T, int Chunks>
AMBER_HOST_DEVICE void quantize_lane_store(const QuantizeCompressArgs& args, int64_t t, int thread, int threads,
                                           const QuantizeChunk (&chunk)[Chunks], const TokenScale& units) {
  const int64_t padded_rows = metadata_rows(args.layout, args.rows);
  const int64_t padded_cols = metadata_cols(args.layout, args.cols);
  AMBER_UNROLL
  for (int i = 0; i < Chunks; ++i) {
    const int64_t k = (static_cast<int64_t>(i) * threads + thread) * kQuantizeColumns;
    if (k >= padded_cols) continue;
    const bool filled = t < args.rows && k < args.cols;
    if (k < args.cols && t < args.value_rows) {
      store_values(args, t, k, filled ? quantize_chunk<T>(args, k, chunk[i], units.inverse) : Words4{});
    }
    if (t < padded_rows) store_metadata(args, t, k, padded_rows, filled ? chunk[i].metadata : kPaddingMetadata);
  }
}

}  // namespace amber::cuda
