#include "amber/cpu/quantize/quantize.h"

#include <cstring>
#include <vector>

#include "amber/cpu/prune/prune_row.h"
#include "amber/cpu/quantize/quantize_isa.h"
#include "amber/cpu/subnormals.h"
#include "amber/rescale.h"

namespace amber::cpu {
namespace {

template <typename T>
void smooth_row(const T* x, const float* smooth, int64_t cols, float* v) {
  for (int64_t k = 0; k < cols; ++k) v[k] = smooth ? to_float(x[k]) * smooth[k] : to_float(x[k]);
}

void portable_smooth(const void* x, DType dtype, const float* smooth, int64_t cols, float* v) {
  switch (dtype) {
    case DType::kFloat32:
      return smooth_row(static_cast<const float*>(x), smooth, cols, v);
    case DType::kFloat16:
      return smooth_row(static_cast<const Float16*>(x), smooth, cols, v);
    case DType::kBFloat16:
      return smooth_row(static_cast<const BFloat16*>(x), smooth, cols, v);
  }
}

uint32_t portable_absmax_bits(const float* v, int64_t cols) {
  uint32_t largest = 0;
  for (int64_t k = 0; k < cols; ++k) {
    const uint32_t bits = absolute_bits(v[k]);
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

double portable_variance(const float* v, int64_t cols) { return population_variance(v, cols); }

void portable_to_int8(const float* v, float inverse, int64_t cols, int8_t* out) {
  for (int64_t k = 0; k < cols; ++k) out[k] = to_int8(v[k], inverse);
}

template <typename T>
void dequantize_row(const int32_t* product, float token_scale, const float* weight_scale, const T* bias, int64_t cols,
                    T* y) {
  for (int64_t n = 0; n < cols; ++n) {
    const float value = static_cast<float>(product[n]) * token_scale * weight_scale[n];
    y[n] = from_float<T>(bias ? value + to_float(bias[n]) : value);
  }
}

void portable_dequantize(const int32_t* product, float token_scale, const float* weight_scale, const void* bias,
                         DType dtype, int64_t cols, void* y) {
  switch (dtype) {
    case DType::kFloat32:
      return dequantize_row(product, token_scale, weight_scale, static_cast<const float*>(bias), cols,
                            static_cast<float*>(y));
    case DType::kFloat16:
      return dequantize_row(product, token_scale, weight_scale, static_cast<const Float16*>(bias), cols,
                            static_cast<Float16*>(y));
    case DType::kBFloat16:
      return dequantize_row(product, token_scale, weight_scale, static_cast<const BFloat16*>(bias), cols,
                            static_cast<BFloat16*>(y));
  }
}

constexpr QuantizeSteps kQuantizePortable = {&portable_smooth, &portable_absmax_bits, &portable_variance,
                                             &portable_to_int8, &portable_dequantize};

const QuantizeSteps& steps_of([[maybe_unused]] Isa isa) {
#if defined(AMBER_X86)
  if (isa == Isa::kAvx512) return kQuantizeAvx512;
  if (isa == Isa::kAvx2) return kQuantizeAvx2;
#endif
  return kQuantizePortable;
}

}  // namespace

Status validate(const QuantizeArgs& args) {
  if (!args.pattern.valid()) return Status::kInvalidPattern;
  if (args.rows < 0 || args.cols < 0) return Status::kNegativeSize;
  if (args.cols % args.pattern.m != 0) return Status::kColsNotMultipleOfM;
  const bool empty = args.rows == 0 || args.cols == 0;
  if (!empty && (!args.x || !args.values || !args.token_scale)) return Status::kNullPointer;
  return Status::kOk;
}

void quantize_rows_with(Isa isa, const QuantizeArgs& args, int64_t row_begin, int64_t row_end) {
  const KeepSubnormals keep_subnormals;
  const QuantizeSteps& steps = steps_of(isa);
  const int64_t row_bytes = args.cols * element_bytes(args.dtype);
  const bool sparse = args.pattern.n < args.pattern.m;
  const bool rescaled = sparse && args.rescale == Rescale::kVariance;
  std::vector<uint8_t> pruned(sparse ? row_bytes : 0);
  std::vector<float> v(args.cols), unpruned(rescaled ? args.cols : 0);

  for (int64_t t = row_begin; t < row_end; ++t) {
    const void* x = static_cast<const uint8_t*>(args.x) + t * row_bytes;
    if (sparse) {
      prune_rows_with(
          isa, {x, args.scale, pruned.data(), nullptr, 1, args.cols, args.pattern, args.dtype, Rescale::kNone}, 0, 1);
    }
    steps.smooth(sparse ? pruned.data() : x, args.dtype, args.smooth, args.cols, v.data());
    const TokenScale units = token_scale(steps.absmax_bits(v.data(), args.cols), largest_value(args.type));
    args.token_scale[t] = units.scale;
    if (rescaled) {
      steps.smooth(x, args.dtype, args.smooth, args.cols, unpruned.data());
      args.token_scale[t] *=
          rescale_factor(steps.variance(unpruned.data(), args.cols), steps.variance(v.data(), args.cols));
    }
    auto* values = static_cast<uint8_t*>(args.values) + t * args.cols;
    if (units.inverse == 0.0f) {
      std::memset(values, 0, args.cols);
    } else if (args.type == QuantizedType::kInt8) {
      steps.to_int8(v.data(), units.inverse, args.cols, reinterpret_cast<int8_t*>(values));
    } else {
      for (int64_t k = 0; k < args.cols; ++k) values[k] = to_e4m3(v[k], units.inverse);
    }
  }
}

void quantize_rows(const QuantizeArgs& args, int64_t row_begin, int64_t row_end) {
  quantize_rows_with(best_isa(), args, row_begin, row_end);
}

void dequantize_rows_with(Isa isa, const DequantizeArgs& args, int64_t row_begin, int64_t row_end) {
  const KeepSubnormals keep_subnormals;
  const QuantizeSteps& steps = steps_of(isa);
  for (int64_t t = row_begin; t < row_end; ++t) {
    steps.dequantize(args.product + t * args.cols, args.token_scale[t], args.weight_scale, args.bias, args.dtype,
                     args.cols, static_cast<uint8_t*>(args.y) + t * args.cols * element_bytes(args.dtype));
  }
}

void dequantize_rows(const DequantizeArgs& args, int64_t row_begin, int64_t row_end) {
  dequantize_rows_with(best_isa(), args, row_begin, row_end);
}

}  // namespace amber::cpu
