// Sparsity patterns. "N:M": of every M consecutive channels of a token, N survive. "N:16w": N of every 16
// survive, and only sets that the windows of a 2:4 machine hold (window.h).
#pragma once

namespace amber {

inline constexpr int kMaxM = 32;  // a group's survivors fit in one 32-bit mask

struct Pattern {
  int n;
  int m;
  bool windowed = false;

  constexpr bool valid() const {
    return windowed ? m == 16 && (n == 10 || n == 12) : 1 <= n && n <= m && m <= kMaxM;
  }
  constexpr bool operator==(const Pattern& other) const {
    return n == other.n && m == other.m && windowed == other.windowed;
  }
};

}  // namespace amber
