// The arguments of prune_compress, free of CUDA's headers.
#pragma once

#include <cstdint>

#include "amber/dtype.h"
#include "amber/metadata.h"

namespace amber::cuda {

struct PruneCompressArgs {
  const void* x;       // [rows, cols], fp16 or bf16, contiguous, 16-byte aligned
  const float* scale;  // [cols], 16-byte aligned, or null for 1 everywhere
  void* values;        // [value_rows, cols / 2], 16-byte aligned
  uint8_t* metadata;   // metadata_bytes(layout, rows, cols)
  int64_t rows;
  int64_t cols;        // a multiple of kCompressColumns
  int64_t value_rows;  // rows, or more: rows past `rows` are written as zeros
  DType dtype;
  MetadataLayout layout;  // a 16-bit layout
};

// Each thread takes 16 columns: 32 bytes in, 16 bytes of values and 2 bytes of E out.
inline constexpr int64_t kCompressColumns = 16;

}  // namespace amber::cuda
