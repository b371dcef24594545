// The arguments of prune_compress, free of CUDA's headers.
#pragma once

#include <cstdint>

#include "amber/dtype.h"
#include "amber/metadata.h"
#include "amber/pattern.h"

namespace amber::cuda {

struct PruneCompressArgs {
  const void* x;       // [rows, cols], fp16 or bf16, contiguous, 16-byte aligned
  const float* scale;  // [cols], 16-byte aligned, or null for 1 everywhere
  void* values;        // [value_rows, K' / 2], 16-byte aligned; K' = widened_cols (window.h), cols for 2:4
  uint8_t* metadata;   // metadata_bytes(layout, rows, K')
  int64_t rows;
  int64_t cols;        // a multiple of kCompressColumns, of kCompressCopiesColumns where there are copies
  int64_t value_rows;  // rows, or more: rows past `rows` are written as zeros
  DType dtype;
  MetadataLayout layout;     // a 16-bit layout
  Pattern pattern = {2, 4};  // one that has windows (extra_windows)
  const void* up = nullptr;  // as x, for rows that are silu(x) * up
};

// A thread takes 16 columns at a time: 32 bytes in, 16 bytes of values and 2 bytes of E out.
inline constexpr int64_t kCompressColumns = 16;
// Where there are copies, twice that: then those fill whole bytes of E.
inline constexpr int64_t kCompressCopiesColumns = 2 * kCompressColumns;

}  // namespace amber::cuda
