// Window layouts against a matching found by augmenting paths, and against every subset by brute force.
#include "amber/window.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <random>
#include <vector>

#include "amber/cpu/compress/widen.h"
#include "amber/select.h"
#include "amber/select_window.h"

namespace {

using namespace amber;

constexpr uint32_t kAllMasks = 1u << kWindowColumns;

// A slot for `column`, moving others out of the way where need be.
bool find_slot(int column, int extra, std::vector<int>& owner, std::vector<bool>& tried) {
  for (int slot = 0; slot < 2 * (kQuads + extra); ++slot) {
    if (!(window_columns(slot / 2) >> column & 1u) || tried[slot]) continue;
    tried[slot] = true;
    if (owner[slot] < 0 || find_slot(owner[slot], extra, owner, tried)) {
      owner[slot] = column;
      return true;
    }
  }
  return false;
}

bool has_matching(uint32_t kept, int extra) {
  std::vector<int> owner(2 * (kQuads + extra), -1);
  for (int column = 0; column < kWindowColumns; ++column) {
    if (!(kept >> column & 1u)) continue;
    std::vector<bool> tried(owner.size());
    if (!find_slot(column, extra, owner, tried)) return false;
  }
  return true;
}

bool fits_in(uint32_t kept, int extra) {
  return with_extra_windows(extra, [&](auto constant) { return fits<decltype(constant)::value>(kept); });
}

Slots slots_of(uint32_t kept, int extra) {
  return with_extra_windows(extra, [&](auto constant) { return assign_slots<decltype(constant)::value>(kept); });
}

TEST(WindowLayout, QuadsAndCopies) {
  const std::array<uint32_t, 6> windows{0x000f, 0x00f0, 0x0f00, 0xf000, 0x8888, 0x4444};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(window_columns(i), windows[i]);
}

TEST(WindowLayout, OfPatterns) {
  EXPECT_EQ(extra_windows({2, 4}), 0);
  EXPECT_EQ(extra_windows({10, 16, true}), 1);
  EXPECT_EQ(extra_windows({12, 16, true}), 2);
  EXPECT_EQ(extra_windows({8, 16}), 2);
  EXPECT_EQ(extra_windows({4, 8}), 2);
  EXPECT_EQ(extra_windows({10, 16}), -1);
  EXPECT_EQ(extra_windows({1, 4}), -1);
  EXPECT_FALSE((Pattern{8, 16, true}.valid()));
  EXPECT_FALSE((Pattern{10, 32, true}.valid()));
}

TEST(WindowLayout, WidenedColumns) {
  EXPECT_EQ(widened_cols(4096, 0), 4096);
  EXPECT_EQ(widened_cols(4096, 1), 5120);
  EXPECT_EQ(widened_cols(4096, 2), 6144);
  for (int extra : {1, 2}) {
    for (int64_t cols = 0; cols < 3000; cols += 16) {
      const int64_t wide = widened_cols(cols, extra);
      EXPECT_EQ(wide % 128, 0);
      // Every column once as itself, and the copied ones once more, in steps of whole windows.
      std::vector<int> count(cols);
      for (int64_t k = 0; k < wide; ++k) {
        const int64_t source = cpu::source_column(k, cols, extra);
        if (source >= 0) ++count[source];
        if (k < cols) {
          EXPECT_EQ(source, k);
        }
      }
      for (int64_t k = 0; k < cols; ++k) EXPECT_EQ(count[k], 1 + (k % 4 == 3) + (extra == 2 && k % 4 == 2)) << k;
    }
  }
}

TEST(WindowLayout, FitsIsAMatchingForEveryMask) {
  for (int extra = 0; extra <= kMaxExtraWindows; ++extra) {
    for (uint32_t kept = 0; kept < kAllMasks; ++kept) {
      ASSERT_EQ(fits_in(kept, extra), has_matching(kept, extra)) << std::hex << kept << " extra " << extra;
    }
  }
}

TEST(WindowLayout, Every48And816MaskFits) {
  int masks_4_8 = 0, masks_8_16 = 0;
  for (uint32_t kept = 0; kept < kAllMasks; ++kept) {
    if (__builtin_popcount(kept) != 8) continue;
    ++masks_8_16;
    ASSERT_TRUE(fits<2>(kept)) << std::hex << kept;
    if (__builtin_popcount(kept & 0xff) == 4) ++masks_4_8;
  }
  EXPECT_EQ(masks_8_16, 12870);   // C(16, 8)
  EXPECT_EQ(masks_4_8, 70 * 70);  // C(8, 4) twice
}

TEST(WindowLayout, MaximalSetsAreFull) {
  for (int extra = 0; extra <= kMaxExtraWindows; ++extra) {
    for (uint32_t kept = 0; kept < kAllMasks; ++kept) {
      if (!fits_in(kept, extra)) continue;
      bool maximal = true;
      for (int i = 0; i < kWindowColumns; ++i) maximal &= kept >> i & 1u || !fits_in(kept | 1u << i, extra);
      if (maximal) {
        ASSERT_EQ(__builtin_popcount(kept), 8 + 2 * extra) << std::hex << kept;
      }
    }
  }
}

TEST(SlotAssignment, EverySurvivorHasOneSlot) {
  for (int extra = 0; extra <= kMaxExtraWindows; ++extra) {
    for (uint32_t kept = 0; kept < kAllMasks; ++kept) {
      if (!fits_in(kept, extra)) continue;
      const Slots slots = slots_of(kept, extra);
      std::vector<int> seen(kWindowColumns);
      for (int i = 0; i < kWindowColumns; ++i) seen[i] += slots.quads >> i & 1u;
      for (int quad = 0; quad < kQuads; ++quad) {
        ASSERT_LE(__builtin_popcount(slots.quads >> (4 * quad) & 0xfu), 2) << std::hex << kept;
        for (int window = 0; window < extra; ++window)
          seen[4 * quad + copied_column(window)] += slots.extra[window] >> quad & 1u;
      }
      for (int window = 0; window < kMaxExtraWindows; ++window) {
        ASSERT_LE(__builtin_popcount(slots.extra[window]), window < extra ? 2 : 0) << std::hex << kept;
      }
      for (int i = 0; i < kWindowColumns; ++i) ASSERT_EQ(seen[i], static_cast<int>(kept >> i & 1u)) << std::hex << kept;
    }
  }
}

TEST(SlotAssignment, WindowsAreFilledToTwo) {
  for (uint32_t used = 0; used < 16; ++used) {
    if (__builtin_popcount(used) > 2) continue;
    const uint32_t filled = fill_window(used);
    EXPECT_EQ(__builtin_popcount(filled), 2);
    EXPECT_EQ(filled & used, used);
  }
}

// The set that comes first when sets are compared by their best columns: what greedy must find, without greed.
uint32_t best_by_brute_force(const std::array<uint32_t, kWindowColumns>& key, int extra) {
  std::array<int, kWindowColumns> order;
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return key[a] > key[b]; });
  uint32_t best = 0, best_rank = 0;
  for (uint32_t kept = 0; kept < kAllMasks; ++kept) {
    uint32_t rank = 0;
    for (int i = 0; i < kWindowColumns; ++i) rank = rank << 1 | (kept >> order[i] & 1u);
    if (rank > best_rank && fits_in(kept, extra)) best = kept, best_rank = rank;
  }
  return best;
}

uint32_t survivors_of(const std::array<uint32_t, kWindowColumns>& key, int extra) {
  uint32_t keys[kWindowColumns];
  std::copy(key.begin(), key.end(), keys);
  return extra == 1 ? survivors_windowed<1>(keys) : survivors_windowed<2>(keys);
}

TEST(SurvivorsWindowed, IsTheBestSetThatFits) {
  std::mt19937 rng(3);
  for (int trial = 0; trial < 400; ++trial) {
    std::array<uint32_t, kWindowColumns> key;
    const uint32_t range = trial % 4 == 0 ? 3 : trial % 4 == 1 ? 8 : 1u << 30;  // few values: many ties
    for (uint32_t& k : key) k = rng() % 20 == 0 ? kNanKey : rng() % range;
    for (int extra : {1, 2}) ASSERT_EQ(survivors_of(key, extra), best_by_brute_force(key, extra)) << trial;
  }
}

// The definition: columns by score, each taken if the set still fits.
uint32_t by_greed(const uint32_t (&key)[kWindowColumns], int extra) {
  uint64_t order[kWindowColumns];
  for (int i = 0; i < kWindowColumns; ++i) order[i] = static_cast<uint64_t>(~key[i]) << 4 | static_cast<uint64_t>(i);
  std::sort(order, order + kWindowColumns);
  uint32_t kept = 0;
  for (uint64_t next : order) {
    const uint32_t bit = 1u << (next & 15u);
    if (fits_in(kept | bit, extra)) kept |= bit;
  }
  return kept;
}

TEST(SurvivorsWindowed, IsGreedyForTenMillionGroups) {
  std::mt19937 rng(5);
  for (const uint32_t range : {2u, 3u, 5u, 16u, 1u << 30}) {  // few values: many ties
    for (int trial = 0; trial < 2000000; ++trial) {
      uint32_t key[kWindowColumns];
      for (uint32_t& k : key) k = rng() % range;
      ASSERT_EQ(survivors_windowed<1>(key), by_greed(key, 1)) << range << " " << trial;
    }
  }
}

TEST(SurvivorsWindowed, MaximisesTheSumOfScores) {
  std::mt19937 rng(4);
  for (int trial = 0; trial < 100; ++trial) {
    std::array<uint32_t, kWindowColumns> key;
    for (uint32_t& k : key) k = rng() % 1000;
    for (int extra : {1, 2}) {
      uint32_t best = 0;
      const auto sum = [&](uint32_t kept) {
        uint32_t total = 0;
        for (int i = 0; i < kWindowColumns; ++i) total += kept >> i & 1u ? key[i] : 0;
        return total;
      };
      for (uint32_t kept = 0; kept < kAllMasks; ++kept) {
        if (fits_in(kept, extra)) best = std::max(best, sum(kept));
      }
      ASSERT_EQ(sum(survivors_of(key, extra)), best);
    }
  }
}

TEST(SurvivorsWindowed, TiesKeepTheLowerColumn) {
  std::array<uint32_t, kWindowColumns> key;
  key.fill(7);
  // Columns 0 and 1 of each quad, then those of the lowest quads that have a copy.
  EXPECT_EQ(survivors_of(key, 1), 0x33bbu);
  EXPECT_EQ(survivors_of(key, 2), 0x33ffu);
}

}  // namespace
