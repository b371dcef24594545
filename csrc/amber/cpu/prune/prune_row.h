// One row, scalar: the portable kernel, and the tail of the vectorised ones.
#pragma once

#include "amber/cpu/prune/prune.h"
#include "amber/select.h"
#include "amber/select_window.h"

namespace amber::cpu {

template <typename T>
inline static void write_group(const T* x, uint32_t keep, int m, T* pruned, uint8_t* mask) {
  for (int i = 0; i < m; ++i) {
    const bool kept = (keep >> i) & 1u;
    if (mask) mask[i] = kept;
    if (pruned) pruned[i] = kept ? x[i] : T{};
  }
}

template <typename T>
inline static uint32_t select_group(const T* x, const float* scale, Pattern pattern) {
  uint32_t key[kMaxM];
  for (int i = 0; i < pattern.m; ++i) key[i] = score_key(to_float(x[i]), scale ? scale[i] : 1.0f);
  return survivors(key, pattern.n, pattern.m);
}

template <typename T>
inline static uint32_t select_windowed(const T* x, const float* scale, Pattern pattern) {
  uint32_t key[kWindowColumns];
  for (int i = 0; i < kWindowColumns; ++i) key[i] = score_key(to_float(x[i]), scale ? scale[i] : 1.0f);
  return with_extra_windows(extra_windows(pattern),
                            [&](auto extra) { return survivors_windowed<decltype(extra)::value>(key); });
}

// The three patterns of the paper get loops of constant length.
template <typename T, int N, int M>
inline static uint32_t select_group(const T* x, const float* scale) {
  uint32_t key[M];
  for (int i = 0; i < M; ++i) key[i] = score_key(to_float(x[i]), scale ? scale[i] : 1.0f);
  if constexpr (N == 2 && M == 4) return survivors_2_4(key);
  return survivors<M>(key, N);
}

template <typename T>
inline static uint32_t select_any(const T* x, const float* scale, Pattern pattern) {
  if (pattern.windowed) return select_windowed(x, scale, pattern);
  if (pattern == Pattern{2, 4}) return select_group<T, 2, 4>(x, scale);
  if (pattern == Pattern{4, 8}) return select_group<T, 4, 8>(x, scale);
  if (pattern == Pattern{8, 16}) return select_group<T, 8, 16>(x, scale);
  return select_group(x, scale, pattern);
}

template <typename T>
inline static double population_variance(const T* row, int64_t cols) {
  double sum = 0.0;
  for (int64_t k = 0; k < cols; ++k) sum += to_float(row[k]);
  const double mean = sum / static_cast<double>(cols);
  double squares = 0.0;
  for (int64_t k = 0; k < cols; ++k) {
    const double centred = to_float(row[k]) - mean;
    squares += centred * centred;
  }
  return squares / static_cast<double>(cols);
}

}  // namespace amber::cpu
