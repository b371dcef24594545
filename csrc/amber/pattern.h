// Sparsity patterns. "N:M": of every M consecutive channels of a token, N survive. "N:16w": N of every 16
// survive, and only sets that the windows of a 2:4 machine hold (window.h).
#pragma once

namespace amber {

inline constexpr int kMaxM = 32;  // a group's survivors fit in one 32-bit mask

struct Pattern {
  int n;
  int m;
  bool windowed = false;

  constexpr bool valid() const;
  constexpr bool operator==(const Pattern& other) const {
    return n == other.n && m == other.m && windowed == other.windowed;
  }
};

// A pattern that runs on 2:4 hardware.
struct SparsePattern {
  const char* name;
  Pattern pattern;
  int extra_windows;  // that it needs of each 16 columns
};

inline constexpr SparsePattern kSparsePatterns[] = {{"2:4", {2, 4}, 0},
                                                    {"4:8", {4, 8}, 2},
                                                    {"8:16", {8, 16}, 2},
                                                    {"10:16w", {10, 16, true}, 1},
                                                    {"12:16w", {12, 16, true}, 2}};

// -1 when the pattern does not run on 2:4 hardware.
static constexpr int extra_windows(Pattern pattern) {
  for (const SparsePattern& sparse : kSparsePatterns) {
    if (sparse.pattern == pattern) return sparse.extra_windows;
  }
  return -1;
}

constexpr bool Pattern::valid() const { return windowed ? extra_windows(*this) >= 0 : 1 <= n && n <= m && m <= kMaxM; }

}  // namespace amber
