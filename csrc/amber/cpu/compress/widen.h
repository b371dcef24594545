// Widening on the host: the reference of what the CUDA kernels compress for patterns with extra windows.
#pragma once

#include <cstdint>

#include "amber/status.h"
#include "amber/window.h"

namespace amber::cpu {

// Puts the survivors of X [rows, cols], as the byte mask [rows, cols] names them, into the slots of a
// window layout with 0, 1 or 2 extra windows.
//   wide      [rows, widened_cols(cols, extra)], every survivor in exactly one slot, +0 elsewhere
//   wide_mask of that shape, exactly two of each four columns, unused slots among them: as compress_2_4 takes it
Status widen(const void* x, const uint8_t* mask, int64_t rows, int64_t cols, int element_bytes, int extra, void* wide,
             uint8_t* wide_mask);

// The column of W that each column of the widened W' copies; -1 for padding.
int64_t source_column(int64_t wide_column, int64_t cols, int extra);

}  // namespace amber::cpu
