// Argument checks that the CPU and CUDA operators share. Every message names the argument, what it
// was, and what is allowed.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "amber/cpu/prune.h"

namespace amber::ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

template <typename... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) fail(parts...);
}

inline std::vector<int64_t> sizes_of(const Tensor& tensor) {
  std::vector<int64_t> sizes(tensor.dim());
  for (int64_t i = 0; i < tensor.dim(); ++i) sizes[i] = tensor.size(i);
  return sizes;
}

inline std::string shape(const Tensor& tensor) {
  std::ostringstream text;
  text << '[';
  for (int64_t i = 0; i < tensor.dim(); ++i) text << (i ? ", " : "") << tensor.size(i);
  text << ']';
  return text.str();
}

inline DType activation_dtype(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    default:
      fail("x: dtype ", torch::headeronly::toString(x.scalar_type()),
           " is not supported; allowed: float32, float16, bfloat16");
  }
}

inline Pattern checked_pattern(int64_t n, int64_t m) {
  check(1 <= n && n <= m && m <= kMaxM, "pattern: ", n, ":", m, " is not allowed; N:M needs 1 <= N <= M <= ",
        kMaxM);
  return {static_cast<int>(n), static_cast<int>(m)};
}

inline cpu::Rescale checked_rescale(const std::string& rescale) {
  if (rescale == "none") return cpu::Rescale::kNone;
  if (rescale == "variance") return cpu::Rescale::kVariance;
  fail("rescale: '", rescale, "' is not known; allowed: 'none', 'variance'");
}

// K, the size of x's last dimension.
inline int64_t checked_columns(const Tensor& x, Pattern pattern) {
  check(x.dim() >= 1, "x: a 0-dimensional tensor has no channels; at least 1 dimension is needed");
  const int64_t cols = x.size(x.dim() - 1);
  check(cols % pattern.m == 0, "x: its last dimension K = ", cols, " is not a multiple of M = ",
        pattern.m);
  return cols;
}

inline void check_scale_shape(const Tensor& scale, int64_t cols) {
  check(scale.scalar_type() == ScalarType::Float, "scale: dtype ",
        torch::headeronly::toString(scale.scalar_type()), " is not supported; allowed: float32");
  check(scale.dim() == 1 && scale.size(0) == cols, "scale: shape ", shape(scale),
        " does not match x; allowed: [K] = [", cols, "]");
}

inline void check_linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  check(weight.dim() == 2 && weight.size(1) == x.size(x.dim() - 1), "weight: shape ", shape(weight),
        " does not match x; allowed: [N, K] with K = ", x.size(x.dim() - 1));
  check(weight.scalar_type() == x.scalar_type(), "weight: dtype ",
        torch::headeronly::toString(weight.scalar_type()), " differs from x's ",
        torch::headeronly::toString(x.scalar_type()), "; they must be equal");
  if (bias) {
    check(bias->dim() == 1 && bias->size(0) == weight.size(0), "bias: shape ", shape(*bias),
          " does not match weight; allowed: [N] = [", weight.size(0), "]");
    check(bias->scalar_type() == x.scalar_type(), "bias: dtype ",
          torch::headeronly::toString(bias->scalar_type()), " differs from x's ",
          torch::headeronly::toString(x.scalar_type()), "; they must be equal");
  }
}

}  // namespace amber::ops
