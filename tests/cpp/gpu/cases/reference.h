// Products in fp64, and how near to them a kernel must come: for 16-bit and 8-bit operands alike.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "amber/cuda/sparse_gemm/sparse_gemm.h"
#include "amber/dtype.h"

namespace amber::gpu_test {

inline double from_e4m3(uint8_t byte) {
  const int exponent = (byte >> 3) & 15, mantissa = byte & 7;
  const double magnitude = exponent ? std::ldexp(8 + mantissa, exponent - 10) : std::ldexp(mantissa, -9);
  return byte & 0x80 ? -magnitude : magnitude;
}

inline float operand_value(uint8_t byte, cuda::Operands operands) {
  return operands == cuda::Operands::kE4m3 ? static_cast<float>(from_e4m3(byte)) : static_cast<int8_t>(byte);
}

// Y = (X W^T) * token_scale * weight_scale + bias, of operands as the tensor cores see them.
struct Reference {
  int64_t t, n, k;
  std::vector<float> x;                          // [t, k], pruned
  std::vector<float> weight;                     // [n, k]
  std::vector<float> token_scale, weight_scale;  // [t] and [n]; empty: 1
  std::vector<float> bias;                       // [n]; empty: 0
  double product_error;                          // of a product, relative to the sum of the magnitudes of its terms
  double scale_error;                            // of the scaled product, relative

  // All of `y` [t, n] or more rows. It was filled with 0xff, so those bits are what was never written.
  template <typename T>
  void expect(const std::vector<T>& y) const {
    std::vector<double> columns(k * n);  // W^T: the inner loop runs along N
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t c = 0; c < k; ++c) columns[c * n + j] = weight[j * k + c];
    }
    std::vector<double> sum(n), magnitude(n);
    for (int64_t i = 0; i < t; ++i) {
      std::fill(sum.begin(), sum.end(), 0.0);
      std::fill(magnitude.begin(), magnitude.end(), 0.0);
      for (int64_t c = 0; c < k; ++c) {
        const double value = x[i * k + c];
        if (value == 0.0) continue;
        const double* column = &columns[c * n];
        for (int64_t j = 0; j < n; ++j) {
          const double term = value * column[j];
          sum[j] += term, magnitude[j] += std::fabs(term);
        }
      }
      for (int64_t j = 0; j < n; ++j) {
        ASSERT_TRUE(is_right(y[i * n + j], i, j, sum[j], magnitude[j])) << "row " << i << " column " << j;
      }
    }
  }

 private:
  template <typename T>
  testing::AssertionResult is_right(T got, int64_t i, int64_t j, double sum, double magnitude) const {
    if (got.bits == 0xffff) return testing::AssertionFailure() << "never written";
    const double scales = static_cast<double>(token_scale.empty() ? 1.0f : token_scale[i]) *
                          (weight_scale.empty() ? 1.0f : weight_scale[j]);
    const double product = sum * scales, want = product + (bias.empty() ? 0.0f : bias[j]), y = to_float(got);
    if (std::isfinite(want) && std::fabs(want) > 60000.0) {
      return testing::AssertionFailure() << "the test's input is too large for fp16: " << want;
    }
    const double rounding = std::is_same_v<T, Float16> ? 0x1p-11 : 0x1p-8;
    const double bound =
        magnitude * product_error * scales + std::fabs(product) * scale_error + std::fabs(want) * rounding + 1e-6;
    const bool right = std::isnan(want) ? std::isnan(y) : std::isinf(want) ? y == want : std::fabs(y - want) <= bound;
    return right ? testing::AssertionSuccess()
                 : testing::AssertionFailure() << y << " instead of " << want << " +- " << bound;
  }
};

}  // namespace amber::gpu_test
