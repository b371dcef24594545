// Argument checks that the CPU and CUDA operators share. Every message names the argument, what it
// was, and what is allowed.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdio>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "amber/args.h"
#include "amber/pattern_names.h"

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

inline DType activation_dtype(const Tensor& x, const char* name = "x") {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    default:
      fail(name, ": dtype ", torch::headeronly::toString(x.scalar_type()),
           " is not supported; allowed: float32, float16, bfloat16");
  }
}

// "N:M", or the name of a windowed pattern.
inline Pattern checked_pattern(const std::string& text) {
  int n = 0, m = 0, length = 0;
  const bool parsed = std::sscanf(text.c_str(), "%3d:%3d%n", &n, &m, &length) == 2;
  const std::string rest = parsed ? text.substr(static_cast<size_t>(length)) : "?";
  const Pattern pattern{n, m, rest == "w"};
  check((rest.empty() || rest == "w") && pattern.valid(), "pattern: '", text,
        "' is not allowed; it must be 'N:M' with 1 <= N <= M <= ", kMaxM, ", or one of ",
        sparse_pattern_names(", ", "'", true));
  return pattern;
}

inline QuantizedType checked_quantized_type(const std::string& dtype) {
  if (dtype == "int8") return QuantizedType::kInt8;
  if (dtype == "e4m3") return QuantizedType::kE4m3;
  fail("dtype: '", dtype, "' is not known; allowed: 'int8', 'e4m3'");
}

inline ScalarType scalar_type(QuantizedType type) {
  return type == QuantizedType::kInt8 ? ScalarType::Char : ScalarType::Float8_e4m3fn;
}

inline Rescale checked_rescale(const std::string& rescale) {
  if (rescale == "none") return Rescale::kNone;
  if (rescale == "variance") return Rescale::kVariance;
  fail("rescale: '", rescale, "' is not known; allowed: 'none', 'variance'");
}

inline DType checked_dtype(const std::string& dtype) {
  for (const DType known : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    if (dtype == describe(known)) return known;
  }
  fail("dtype: '", dtype, "' is not known; allowed: 'float32', 'float16', 'bfloat16'");
}

inline ScalarType scalar_type(DType dtype) {
  return dtype == DType::kFloat32   ? ScalarType::Float
         : dtype == DType::kFloat16 ? ScalarType::Half
                                    : ScalarType::BFloat16;
}

// K, the size of x's last dimension.
inline int64_t checked_columns(const Tensor& x, Pattern pattern, const char* name = "x") {
  check(x.dim() >= 1, name, ": a 0-dimensional tensor has no channels; at least 1 dimension is needed");
  const int64_t cols = x.size(x.dim() - 1);
  check(cols % pattern.m == 0, name, ": its last dimension K = ", cols, " is not a multiple of M = ", pattern.m);
  return cols;
}

// fp32 [size].
inline void check_factors(const char* name, const Tensor& factors, int64_t size) {
  check(factors.scalar_type() == ScalarType::Float, name, ": dtype ",
        torch::headeronly::toString(factors.scalar_type()), " is not supported; allowed: float32");
  check(factors.dim() == 1 && factors.size(0) == size, name, ": shape ", shape(factors), " does not match; allowed: [",
        size, "]");
}

// `cols` is the weight's: K, or more with a window layout's copies.
inline void check_weight_shape(const Tensor& weight, int64_t cols) {
  check(weight.dim() == 2 && weight.size(1) == cols, "weight: shape ", shape(weight),
        " does not match x; allowed: [N, ", cols, "]");
}

inline void check_weight_dtype(const Tensor& x, const Tensor& weight, const char* name = "x") {
  check(weight.scalar_type() == x.scalar_type(), "weight: dtype ", torch::headeronly::toString(weight.scalar_type()),
        " differs from ", name, "'s ", torch::headeronly::toString(x.scalar_type()), "; they must be equal");
}

inline void check_bias(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  if (!bias) return;
  check(bias->dim() == 1 && bias->size(0) == weight.size(0), "bias: shape ", shape(*bias),
        " does not match weight; allowed: [N] = [", weight.size(0), "]");
  check(bias->scalar_type() == x.scalar_type(), "bias: dtype ", torch::headeronly::toString(bias->scalar_type()),
        " differs from x's ", torch::headeronly::toString(x.scalar_type()), "; they must be equal");
}

inline void check_linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, int64_t cols) {
  check_weight_shape(weight, cols);
  check_weight_dtype(x, weight);
  check_bias(x, weight, bias);
}

// [cols] of the output's dtype, or none.
inline void check_output_bias(const std::optional<Tensor>& bias, int64_t cols, DType dtype) {
  if (!bias) return;
  const ScalarType type = scalar_type(dtype);
  check(bias->dim() == 1 && bias->size(0) == cols && bias->scalar_type() == type, "bias: ", shape(*bias), " of ",
        torch::headeronly::toString(bias->scalar_type()), " is not allowed; it must be [", cols, "] of ",
        torch::headeronly::toString(type));
}

// The dtype of a compressed form's values: `dtype` is that of the activations (none), or an 8-bit one.
inline std::optional<QuantizedType> checked_form_dtype(const std::string& dtype, DType activations) {
  if (dtype == describe(activations)) return std::nullopt;
  if (dtype == "int8") return QuantizedType::kInt8;
  if (dtype == "e4m3") return QuantizedType::kE4m3;
  fail("dtype: '", dtype, "' is not allowed; it must be '", describe(activations), "', 'int8' or 'e4m3'");
}

// The factors of a gated activation, silu(gate) * up: both [..., K], of one shape and dtype.
inline void check_gated(const Tensor& gate, const Tensor& up) {
  check(up.scalar_type() == gate.scalar_type() && sizes_of(up) == sizes_of(gate),
        "up: ", torch::headeronly::toString(up.scalar_type()), " ", shape(up), " does not match gate; it must be ",
        torch::headeronly::toString(gate.scalar_type()), " ", shape(gate));
}

struct DequantizeShape {
  int64_t rows;
  int64_t cols;
  DType dtype;
};

// product int32 [T, N], token_scale fp32 [T], weight_scale fp32 [N], bias [N] of the output's dtype.
inline DequantizeShape check_dequantize(const Tensor& product, const Tensor& token_scale, const Tensor& weight_scale,
                                        const std::optional<Tensor>& bias, const std::string& dtype) {
  check(product.scalar_type() == ScalarType::Int && product.dim() == 2, "product: ", shape(product), " of ",
        torch::headeronly::toString(product.scalar_type()), " is not allowed; it must be [T, N] of int32");
  check_factors("token_scale", token_scale, product.size(0));
  check_factors("weight_scale", weight_scale, product.size(1));
  const DequantizeShape result{product.size(0), product.size(1), checked_dtype(dtype)};
  check_output_bias(bias, result.cols, result.dtype);
  return result;
}

inline void check_int8_matrix(const char* name, const Tensor& matrix, const char* allowed) {
  check(matrix.scalar_type() == ScalarType::Char && matrix.dim() == 2, name, ": ", shape(matrix), " of ",
        torch::headeronly::toString(matrix.scalar_type()), " is not allowed; it must be ", allowed, " of int8");
}

// values int8 [T, K], weight int8 [N, K], the rest as of check_dequantize. Returns the shape of the product.
inline DequantizeShape check_scaled_product(const Tensor& values, const Tensor& token_scale, const Tensor& weight,
                                            const Tensor& weight_scale, const std::optional<Tensor>& bias,
                                            const std::string& dtype) {
  check_int8_matrix("values", values, "[T, K]");
  check_int8_matrix("weight", weight, "[N, K]");
  check(weight.size(1) == values.size(1), "weight: shape ", shape(weight), " does not match values; allowed: [N, ",
        values.size(1), "]");
  check_factors("token_scale", token_scale, values.size(0));
  check_factors("weight_scale", weight_scale, weight.size(0));
  const DequantizeShape result{values.size(0), weight.size(0), checked_dtype(dtype)};
  check_output_bias(bias, result.cols, result.dtype);
  return result;
}

}  // namespace amber::ops
