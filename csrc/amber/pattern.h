// N:M sparsity patterns: of every M consecutive channels of a token, N survive.
#pragma once

namespace amber {

inline constexpr int kMaxM = 32;  // a group's survivors fit in one 32-bit mask

struct Pattern {
  int n;
  int m;

  constexpr bool valid() const { return 1 <= n && n <= m && m <= kMaxM; }
  constexpr bool operator==(const Pattern& other) const { return n == other.n && m == other.m; }
};

}  // namespace amber
