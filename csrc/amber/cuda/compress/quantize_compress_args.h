// The arguments of quantize_compress, free of CUDA's headers.
#pragma once

#include <cstdint>

#include "amber/dtype.h"
#include "amber/metadata.h"
#include "amber/pattern.h"
#include "amber/quantize.h"

namespace amber::cuda {

struct QuantizeCompressArgs {
  const void* x;        // [rows, cols], fp16 or bf16, contiguous, 16-byte aligned
  const float* smooth;  // [cols] factors that x is multiplied with, 16-byte aligned, or null for 1
  const float* scale;   // [cols] channel scales of the selection, 16-byte aligned, or null for 1
  void* values;         // [value_rows, K' / 2], 1 byte each, 16-byte aligned; K' = widened_cols (window.h)
  uint8_t* metadata;    // metadata_bytes(layout, rows, K')
  float* token_scale;   // [value_rows]
  int64_t rows;
  int64_t cols;        // a multiple of kQuantizeColumns, at most kMaxQuantizeColumns
  int64_t value_rows;  // rows, or more: rows past `rows` are written as zeros
  DType dtype;
  MetadataLayout layout;  // an 8-bit layout
  QuantizedType type;
  bool rescale;              // multiply the token's scale by its rescale_factor (rescale.h)
  Pattern pattern = {2, 4};  // one that has windows (extra_windows)
  const void* up = nullptr;  // as x, for rows that are silu(x) * up
};

// Each thread takes 32 columns of a row: 64 bytes in, 16 bytes of values and 4 bytes of E out.
inline constexpr int64_t kQuantizeColumns = 32;
inline constexpr int kMaxQuantizeThreads = 512;
inline constexpr int kMaxQuantizeChunks = 2;
inline constexpr int64_t kMaxQuantizeColumns = kQuantizeColumns * kMaxQuantizeThreads * kMaxQuantizeChunks;

}  // namespace amber::cuda
