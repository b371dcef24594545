// 2:4 compression on the host: the reference of the CUDA kernel, and what tests decompress with.
#pragma once

#include <cstdint>

#include "amber/metadata.h"
#include "amber/status.h"

namespace amber::cpu {

// Picks 2 of each 4 columns of X [rows, cols] (16-bit or 8-bit elements, by `element_bytes`) as the
// byte mask [rows, cols] says, exactly two per quad, and writes
//   values   [rows, cols / 2]
//   metadata [metadata_bytes(layout, rows, cols)], padding rows and columns as nibble {0, 1}.
Status compress_2_4(const void* x, const uint8_t* mask, int64_t rows, int64_t cols, int element_bytes,
                    MetadataLayout layout, void* values, uint8_t* metadata);

// Writes X [rows, cols] back, zeros where nothing was kept.
Status decompress_2_4(const void* values, const uint8_t* metadata, int64_t rows, int64_t cols, int element_bytes,
                      MetadataLayout layout, void* x);

}  // namespace amber::cpu
