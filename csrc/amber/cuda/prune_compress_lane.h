// What one thread of the prune-and-compress kernel does, written for host and device: the test runs
// the very same code over every block and thread on the CPU and holds it against cpu::compress_2_4.
#pragma once

#include <cstring>

#include "amber/cuda/element.h"
#include "amber/cuda/prune_compress_args.h"
#include "amber/select.h"

namespace amber::cuda {

// A warp covers 128 columns (8 lanes of 16) of 32 rows: lanes of one column group take rows
// r, r + 8 of a group of 16, which lie side by side in SM90's E, so a lane stores both of their words
// of E at once and a warp's stores fill whole 32-byte sectors.
inline constexpr int kLanesAlongK = 8;
inline constexpr int kWarpColumns = kLanesAlongK * kCompressColumns;
inline constexpr int kWarpRows = 32;
inline constexpr int kWarps = 4;
inline constexpr uint32_t kPaddingWord = 0x4444;  // indices {0, 1} in every quad

struct Words4 {
  uint32_t word[4];
};

// X is read once: on a GPU, do not keep it in the cache.
AMBER_HOST_DEVICE Words4 load_streaming(const void* from) {
  Words4 words;
#if defined(__CUDA_ARCH__)
  const uint4 four = __ldcs(static_cast<const uint4*>(from));
  words = {{four.x, four.y, four.z, four.w}};
#else
  std::memcpy(&words, from, sizeof words);
#endif
  return words;
}

// The scale is read by every row: on a GPU, through the read-only cache.
AMBER_HOST_DEVICE void load_4_floats(const float* from, float* to) {
#if defined(__CUDA_ARCH__)
  const float4 four = __ldg(reinterpret_cast<const float4*>(from));
  to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
#else
  std::memcpy(to, from, 4 * sizeof(float));
#endif
}

AMBER_HOST_DEVICE void store_16_bytes(void* to, const Words4& words) {
#if defined(__CUDA_ARCH__)
  *static_cast<uint4*>(to) = make_uint4(words.word[0], words.word[1], words.word[2], words.word[3]);
#else
  std::memcpy(to, &words, sizeof words);
#endif
}

// Bytes of {low, high} by the selector's nibbles, as the PRMT instruction picks them.
AMBER_HOST_DEVICE uint32_t pick_bytes(uint32_t low, uint32_t high, uint32_t selector) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(low, high, selector);
#else
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  uint32_t picked = 0;
  for (int i = 0; i < 4; ++i) {
    picked |= static_cast<uint32_t>(bytes >> (8 * ((selector >> (4 * i)) & 7u)) & 0xffu) << (8 * i);
  }
  return picked;
#endif
}

// Compresses 4 columns, two words: the kept two as the result, and their nibble.
template <typename T>
AMBER_HOST_DEVICE uint32_t compress_quad(uint32_t low, uint32_t high, const float* scale,
                                         uint32_t& nibble) {
  const uint32_t key[4] = {
      score_key(widen(T{static_cast<uint16_t>(low & 0xffffu)}), scale[0]),
      score_key(widen(T{static_cast<uint16_t>(low >> 16)}), scale[1]),
      score_key(widen(T{static_cast<uint16_t>(high & 0xffffu)}), scale[2]),
      score_key(widen(T{static_cast<uint16_t>(high >> 16)}), scale[3])};
  nibble = metadata_nibble(survivors_2_4(key));
  // Element i is bytes 2i and 2i + 1.
  const uint32_t first = nibble & 3u, second = nibble >> 2;
  return pick_bytes(low, high, (0x0010u + 0x0022u * first) | (0x1000u + 0x2200u * second));
}

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
