// Windows: how patterns other than 2:4 run on hardware that keeps 2 of each 4 columns.
//
// A window is four columns of which two slots may be used. The quads {4q .. 4q + 3} are windows already.
// Appending copies of some columns of W adds windows: extra window e of each 16 columns copies
// copied_column(e) of each of its four quads. A survivor lies in exactly one slot; unused slots hold zero. The
// product of the widened X' and W' is then that of the pruned X and W.
//
// The sets of columns that fit form a transversal matroid: every maximal set has as many columns as
// there are slots that can be filled, and taking columns in the order of their scores, whenever they
// still fit, gives the set with the best scores (select_window.h).
#pragma once

#include <cstdint>
#include <type_traits>

#include "amber/macros.h"
#include "amber/metadata.h"
#include "amber/pattern.h"

namespace amber {

inline constexpr int kWindowColumns = 16;  // windows repeat after so many columns
inline constexpr int kQuads = 4;
inline constexpr int kMaxExtraWindows = 2;

// The column of each quad that an extra window copies.
constexpr AMBER_HOST_DEVICE int copied_column(int window) { return 3 - window; }

// The columns that may use a window, as a mask of 16: windows 0 to 3 are the quads, then the extra ones.
constexpr AMBER_HOST_DEVICE uint32_t window_columns(int window) {
  return window < kQuads ? 0xfu << (4 * window) : 0x1111u << copied_column(window - kQuads);
}

// Runs `run` with `extra`, which is 0 to kMaxExtraWindows, as a constant.
template <typename Run>
static auto with_extra_windows(int extra, Run run) {
  static_assert(kMaxExtraWindows == 2);
  return extra == 0   ? run(std::integral_constant<int, 0>{})
         : extra == 1 ? run(std::integral_constant<int, 1>{})
                      : run(std::integral_constant<int, 2>{});
}

// K of the widened product. W and X count as padded with zero columns to `padded_cols`, so that K' is a
// multiple of 128 and E has no padding of its own; then come the copies, 16 columns after 16 columns.
constexpr AMBER_HOST_DEVICE int64_t padded_cols(int64_t cols, int extra) {
  return extra == 0 ? cols : round_up(cols, extra == 1 ? 512 : 256);
}

constexpr AMBER_HOST_DEVICE int64_t widened_cols(int64_t cols, int extra) {
  return padded_cols(cols, extra) / 4 * (4 + extra);
}

// Where the copies of columns k .. k + 15 (k a multiple of 16) begin: 4 for each extra window.
constexpr AMBER_HOST_DEVICE int64_t copies_begin(int64_t k, int64_t cols, int extra) {
  return padded_cols(cols, extra) + k / 4 * extra;
}

// ---- which sets fit, on masks of 16 columns; `Bits` is uint32_t, or a vector of 32-bit integers

// How many quads are marked, for a mask with at most bit 0 of each quad set.
template <typename Bits>
AMBER_HOST_DEVICE Bits count_quads(Bits marks) {
  return (marks * 0x1111 >> 12) & 7;
}

// What a set of columns asks of the extra windows: bit 0 of each quad.
template <typename Bits>
struct Overflow {
  Bits any;      // three columns or more: one at least must move
  Bits both;     // all four: columns 3 and 2 move
  Bits third;    // column 3 must move, for column 2 is not there (or all four are)
  Bits second;   // column 2 must move, for column 3 is not there (or all four are)
  Bits blocked;  // three columns, none of them column 3
};

template <typename Bits>
AMBER_HOST_DEVICE Overflow<Bits> overflow(Bits kept) {
  const Bits b0 = kept & 0x1111, b1 = (kept >> 1) & 0x1111, b2 = (kept >> 2) & 0x1111, b3 = (kept >> 3) & 0x1111;
  const Bits low = b0 & b1, high = b2 & b3;
  return {(low & (b2 | b3)) | (high & (b0 | b1)), low & high, low & b3, low & b2, low & b2 & ~b3};
}

// Whether every column of `kept` finds a slot, by Hall's condition.
template <int Extra, typename Bits>
AMBER_HOST_DEVICE auto fits(Bits kept) {
  const Overflow<Bits> over = overflow(kept);
  if constexpr (Extra == 0) {
    return over.any == 0;
  } else if constexpr (Extra == 1) {
    return ((over.blocked | over.both) == 0) & (count_quads(over.any) <= 2);
  } else {
    return (count_quads(over.third) <= 2) & (count_quads(over.second) <= 2) &
           (count_quads(over.any) + count_quads(over.both) <= 4);
  }
}

// ---- which slot each column of a fitting set takes

struct Slots {
  uint32_t quads;                    // columns that stay in their quad, a mask of 16
  uint32_t extra[kMaxExtraWindows];  // quads whose copied column uses the extra window, masks of 4
};

// Bit 0 of each nibble to a mask of 4.
AMBER_HOST_DEVICE uint32_t gather_marks(uint32_t marks) {
  return (marks | marks >> 3 | marks >> 6 | marks >> 9) & 0xfu;
}

template <int Extra>
AMBER_HOST_DEVICE Slots assign_slots(uint32_t kept) {
  Slots slots = {kept, {0, 0}};
  if constexpr (Extra > 0) {
    const Overflow<uint32_t> over = overflow(kept);
    uint32_t third = over.third, second = over.second;
    if constexpr (Extra == 1) {
      third = over.any;
    } else {
      // Quads that may move either column: column 3 while its window has room, then column 2.
      const uint32_t free = over.any & ~(over.third | over.second);
      AMBER_UNROLL
      for (int quad = 0; quad < kQuads; ++quad) {
        const uint32_t mark = free & (1u << (4 * quad));
        const bool room = count_quads(third) < 2;
        third |= room ? mark : 0u;
        second |= room ? 0u : mark;
      }
      slots.extra[1] = gather_marks(second);
      slots.quads &= ~(second << copied_column(1));
    }
    slots.extra[0] = gather_marks(third);
    slots.quads &= ~(third << copied_column(0));
  }
  return slots;
}

// Two bits of four for the metadata, where one or none is used: the lowest free ones are added.
AMBER_HOST_DEVICE uint32_t fill_window(uint32_t used) {
  if ((used & (used - 1)) == 0) used |= 1u;
  if ((used & (used - 1)) == 0) used |= 2u;
  return used;
}

}  // namespace amber
