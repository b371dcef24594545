// Random input of the GPU tests, and weights as the patterns need them.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "amber/cpu/compress/widen.h"
#include "amber/cuda/sparse_gemm/sparse_gemm.h"
#include "amber/dtype.h"

namespace amber::gpu_test {

template <typename T>
std::vector<T> random_normal(size_t count, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<T> x(count);
  for (T& value : x) value = from_float<T>(normal(rng));
  return x;
}

// Normal numbers with NaN, Inf, -0 and ties among them.
template <typename T>
std::vector<T> random_awkward(size_t count, unsigned seed) {
  std::vector<T> x = random_normal<T>(count, seed);
  std::mt19937 rng(seed + 1);
  const float specials[] = {
      std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity(), -0.0f, 0.0f, 1.0f, -1.0f};
  for (T& value : x) {
    if (const int kind = rng() % 16; kind < 6) value = from_float<T>(specials[kind]);
  }
  return x;
}

// Tokens [rows, cols] of a layer: NaN and Inf in every third of them, one that is all zeros, ties everywhere.
template <typename T>
std::vector<T> random_tokens(int64_t rows, int64_t cols, unsigned seed) {
  std::vector<T> x = random_awkward<T>(rows * cols, seed);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < cols; ++c) {
      T& value = x[row * cols + c];
      if (row % 3 != 2 && !std::isfinite(to_float(value))) value = from_float<T>(1.0f);
      if (row == 4) value = T{};
    }
  }
  return x;
}

// Finite factors above zero.
inline std::vector<float> random_factors(int64_t count, unsigned seed) {
  std::vector<float> result = random_normal<float>(count, seed);
  for (float& f : result) f = std::fabs(f) + 0.1f;
  return result;
}

// N of a product whose last tile is as narrow as the kernel allows.
inline int64_t odd_out_features(const cuda::SparseGemmDescriptor& kernel) { return 256 + kernel.out_features_multiple; }

// A weight [n, k] with the copies that a pattern's windows need.
template <typename T>
std::vector<T> widen_weight(const std::vector<T>& weight, int64_t k, Pattern pattern) {
  const int extra = extra_windows(pattern);
  const int64_t n = static_cast<int64_t>(weight.size()) / k, wide = widened_cols(k, extra);
  std::vector<T> result(n * wide, T{});
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t column = 0; column < wide; ++column) {
      const int64_t source = cpu::source_column(column, k, extra);
      if (source >= 0) result[row * wide + column] = weight[row * k + source];
    }
  }
  return result;
}

}  // namespace amber::gpu_test
