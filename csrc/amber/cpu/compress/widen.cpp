#include "amber/cpu/compress/widen.h"

#include <cstring>

namespace amber::cpu {
namespace {

bool fits(uint32_t kept, int extra) {
  return with_extra_windows(extra, [&](auto constant) { return amber::fits<decltype(constant)::value>(kept); });
}

Slots assign_slots(uint32_t kept, int extra) {
  return with_extra_windows(extra, [&](auto constant) { return amber::assign_slots<decltype(constant)::value>(kept); });
}

}  // namespace

Status widen(const void* x, const uint8_t* mask, int64_t rows, int64_t cols, int element_bytes, int extra, void* wide,
             uint8_t* wide_mask) {
  if (rows < 0 || cols < 0) return Status::kNegativeSize;
  if (extra < 0 || extra > kMaxExtraWindows) return Status::kInvalidPattern;
  if (cols % kWindowColumns != 0) return Status::kColsNotMultipleOfM;
  const int64_t wide_cols = widened_cols(cols, extra);
  if (rows > 0 && cols > 0 && (!x || !mask || !wide || !wide_mask)) return Status::kNullPointer;

  const auto* in = static_cast<const uint8_t*>(x);
  auto* out = static_cast<uint8_t*>(wide);
  for (int64_t t = 0; t < rows; ++t) {
    uint8_t* row = out + t * wide_cols * element_bytes;
    uint8_t* row_mask = wide_mask + t * wide_cols;
    std::memset(row, 0, wide_cols * element_bytes);
    for (int64_t k = 0; k < wide_cols; k += 4) std::memcpy(row_mask + k, "\1\1\0\0", 4);  // padding

    const auto place = [&](int64_t from, int64_t to) {
      std::memcpy(row + to * element_bytes, in + (t * cols + from) * element_bytes, element_bytes);
    };
    const auto mark = [&](int64_t at, uint32_t filled) {
      for (int i = 0; i < 4; ++i) row_mask[at + i] = filled >> i & 1u;
    };
    for (int64_t k = 0; k < cols; k += kWindowColumns) {
      uint32_t kept = 0;
      for (int i = 0; i < kWindowColumns; ++i) kept |= static_cast<uint32_t>(mask[t * cols + k + i] != 0) << i;
      if (!fits(kept, extra)) return Status::kMaskDoesNotFit;
      const Slots slots = assign_slots(kept, extra);
      for (int i = 0; i < kWindowColumns; ++i) {
        if (slots.quads >> i & 1u) place(k + i, k + i);
      }
      for (int quad = 0; quad < kQuads; ++quad) mark(k + 4 * quad, fill_window(slots.quads >> (4 * quad) & 0xfu));
      for (int window = 0; window < extra; ++window) {
        const int64_t at = copies_begin(k, cols, extra) + 4 * window;
        for (int quad = 0; quad < kQuads; ++quad) {
          if (slots.extra[window] >> quad & 1u) place(k + 4 * quad + copied_column(window), at + quad);
        }
        mark(at, fill_window(slots.extra[window]));
      }
    }
  }
  return Status::kOk;
}

int64_t source_column(int64_t wide_column, int64_t cols, int extra) {
  const int64_t padded = padded_cols(cols, extra);
  int64_t source = wide_column;
  if (wide_column >= padded) {
    const int64_t copy = wide_column - padded, per_group = kQuads * extra;
    source = copy / per_group * kWindowColumns + copy % kQuads * 4 + copied_column(copy % per_group / kQuads);
  }
  return source < cols ? source : -1;
}

}  // namespace amber::cpu
