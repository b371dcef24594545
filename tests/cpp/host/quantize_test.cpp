// The 8-bit quantisation of the CPU, every instruction set, against plain fp64 arithmetic.
#include "amber/cpu/quantize/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "amber/cpu/prune/prune.h"

namespace {

using namespace amber;
using cpu::Isa;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// The value of an e4m3 byte, from its definition: 4 exponent bits of bias 7, 3 mantissa bits, no Inf.
double e4m3_value(uint8_t byte) {
  const int exponent = (byte >> 3) & 15, mantissa = byte & 7;
  const double magnitude = exponent ? std::ldexp(8 + mantissa, exponent - 10) : std::ldexp(mantissa, -9);
  return byte & 0x80 ? -magnitude : magnitude;
}

// Nearest e4m3 value by search; ties go to the even mantissa.
uint8_t nearest_e4m3(double value) {
  uint8_t best = 0;
  double best_distance = kInf;
  for (int byte = 0; byte < 0x7f; ++byte) {
    const double distance = std::fabs(e4m3_value(static_cast<uint8_t>(byte)) - std::fabs(value));
    if (distance < best_distance || (distance == best_distance && byte % 2 == 0)) {
      best = static_cast<uint8_t>(byte), best_distance = distance;
    }
  }
  return static_cast<uint8_t>(best | (std::signbit(value) ? 0x80 : 0));
}

TEST(Quantize, E4m3RoundsToTheNearest) {
  std::mt19937 rng(3);
  std::uniform_real_distribution<float> exponent(-14.0f, 9.0f);
  for (int i = 0; i < 200000; ++i) {
    const float value = (rng() % 2 ? 1.0f : -1.0f) * std::exp2(exponent(rng));
    ASSERT_EQ(to_e4m3(value, 1.0f), nearest_e4m3(value)) << value;
  }
  for (int byte = 0; byte < 0x7e; ++byte) {
    // Every value, and every tie between neighbours.
    const auto low = static_cast<float>(e4m3_value(static_cast<uint8_t>(byte)));
    const auto high = static_cast<float>(e4m3_value(static_cast<uint8_t>(byte + 1)));
    EXPECT_EQ(to_e4m3(low, 1.0f), byte);
    EXPECT_EQ(to_e4m3((low + high) / 2, 1.0f), byte + byte % 2);
  }
  EXPECT_EQ(to_e4m3(1e9f, 1.0f), 0x7e);
  EXPECT_EQ(to_e4m3(-1e9f, 1.0f), 0xfe);
  EXPECT_EQ(to_e4m3(1.0f, 0.0f), 0);
}

TEST(Quantize, Int8RoundsToNearestEven) {
  for (int i = -127 * 4; i <= 127 * 4; ++i) {
    const float value = static_cast<float>(i) / 4;
    EXPECT_EQ(to_int8(value, 1.0f), static_cast<int8_t>(std::nearbyint(value))) << value;
  }
  EXPECT_EQ(to_int8(kNan, 0.0f), 0);
}

TEST(Quantize, TheLargestValueNeverPassesTheLimit) {
  std::mt19937 rng(4);
  for (int i = 0; i < 1000000; ++i) {
    const uint32_t bits = rng() % kInfKey;
    const TokenScale units = token_scale(bits, 127.0f);
    const float absmax = float_from_bits(bits);
    ASSERT_TRUE(std::isnormal(units.scale) && std::isnormal(units.inverse)) << absmax;
    ASSERT_LE(std::abs(int{to_int8(-absmax, units.inverse)}), 127);
    if (absmax > kSmallestAbsmax) {
      ASSERT_EQ(to_int8(absmax, units.inverse), 127) << absmax;
    }
  }
}

template <typename T>
void check(Isa isa, Pattern pattern, bool smoothed, QuantizedType type, Rescale rescale) {
  SCOPED_TRACE(testing::Message() << cpu::isa_name(isa) << " " << pattern.n << ":" << pattern.m);
  constexpr DType dtype = std::is_same_v<T, float>     ? DType::kFloat32
                          : std::is_same_v<T, Float16> ? DType::kFloat16
                                                       : DType::kBFloat16;
  const int64_t rows = 9, cols = 16 * 13;
  std::mt19937 rng(8);
  std::normal_distribution<float> normal;
  std::vector<T> x(rows * cols);
  for (T& value : x) value = from_float<T>(normal(rng));
  for (int64_t k = 0; k < cols; ++k) x[k] = from_float<T>(k % 3 ? 0.0f : -0.0f);  // a token of zeros
  x[cols + 5] = from_float<T>(kNan);
  x[2 * cols + 7] = from_float<T>(-kInf);
  x[3 * cols + 1] = from_float<T>(60000.0f);                                                 // one huge outlier
  for (int64_t k = 0; k < cols; ++k) x[4 * cols + k] = from_float<T>(k % 2 ? 1.5f : -1.5f);  // all +-127
  std::vector<float> smooth(cols), scale(cols);
  for (int64_t k = 0; k < cols; ++k) smooth[k] = 0.25f + (rng() % 9) * 0.5f, scale[k] = 0.5f + (rng() % 5);

  std::vector<uint8_t> values(rows * cols, 0xee), mask(rows * cols);
  std::vector<float> token_scale(rows, 777.0f);
  const QuantizeArgs args{x.data(),
                          smoothed ? smooth.data() : nullptr,
                          scale.data(),
                          values.data(),
                          token_scale.data(),
                          rows,
                          cols,
                          pattern,
                          dtype,
                          rescale,
                          type};
  ASSERT_EQ(cpu::validate(args), Status::kOk);
  cpu::quantize_rows_with(isa, args, 0, rows);

  cpu::prune_rows({x.data(), scale.data(), nullptr, mask.data(), rows, cols, pattern, dtype, Rescale::kNone}, 0, rows);
  const float largest = largest_value(type);
  for (int64_t t = 0; t < rows; ++t) {
    std::vector<float> all(cols), kept(cols);
    float absmax = 0.0f;
    bool finite = true;
    double sum[2] = {}, squares[2] = {};
    for (int64_t k = 0; k < cols; ++k) {
      all[k] = to_float(x[t * cols + k]) * (smoothed ? smooth[k] : 1.0f);
      kept[k] = mask[t * cols + k] ? all[k] : 0.0f;
      finite = finite && std::isfinite(kept[k]);
      absmax = std::fmax(absmax, std::fabs(kept[k]));
      sum[0] += all[k], sum[1] += kept[k];
    }
    for (int64_t k = 0; k < cols; ++k) {
      squares[0] += std::pow(all[k] - sum[0] / cols, 2), squares[1] += std::pow(kept[k] - sum[1] / cols, 2);
    }
    if (!finite) {
      EXPECT_TRUE(std::isnan(token_scale[t])) << "row " << t;
    } else {
      const float bound = std::fmax(absmax, kSmallestAbsmax);
      const bool rescaled = rescale == Rescale::kVariance && pattern.n < pattern.m && squares[1] > 0;
      const float factor = rescaled ? static_cast<float>(std::sqrt(squares[0] / squares[1])) : 1.0f;
      EXPECT_FLOAT_EQ(token_scale[t], bound / largest * factor) << "row " << t;
    }
    for (int64_t k = 0; k < cols; ++k) {
      const float units = finite ? kept[k] * (largest / std::fmax(absmax, kSmallestAbsmax)) : 0.0f;
      const uint8_t want = !finite ? 0
                           : type == QuantizedType::kInt8
                               ? static_cast<uint8_t>(static_cast<int8_t>(std::nearbyint(units)))
                               : nearest_e4m3(units);
      ASSERT_EQ(values[t * cols + k], want) << "row " << t << " column " << k;
    }
  }
}

template <typename T>
void check_all() {
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (isa > cpu::best_isa()) continue;
    for (Pattern pattern : {Pattern{1, 1}, {2, 4}, {4, 8}, {8, 16}}) {
      check<T>(isa, pattern, false, QuantizedType::kInt8, Rescale::kNone);
      check<T>(isa, pattern, true, QuantizedType::kInt8, Rescale::kVariance);
      check<T>(isa, pattern, true, QuantizedType::kE4m3, Rescale::kNone);
    }
  }
}

TEST(Quantize, Float32) { check_all<float>(); }
TEST(Quantize, Float16) { check_all<Float16>(); }
TEST(Quantize, BFloat16) { check_all<BFloat16>(); }

TEST(Quantize, RefusesBadArguments) {
  float x[8] = {}, scale[2];
  uint8_t values[8];
  QuantizeArgs args{
      x, nullptr, nullptr, values, scale, 1, 8, {2, 4}, DType::kFloat32, Rescale::kNone, QuantizedType::kInt8};
  EXPECT_EQ(cpu::validate(args), Status::kOk);
  args.cols = 6;
  EXPECT_EQ(cpu::validate(args), Status::kColsNotMultipleOfM);
  args.cols = 8, args.token_scale = nullptr;
  EXPECT_EQ(cpu::validate(args), Status::kNullPointer);
  args.pattern = {5, 4};
  EXPECT_EQ(cpu::validate(args), Status::kInvalidPattern);
}

TEST(Dequantize, ScalesThenAddsTheBias) {
  const std::vector<int32_t> product{16777217, -3, 0, 2147483647, 5, -2147483647};
  const std::vector<float> token_scale{0.5f, kNan}, weight_scale{2.0f, 0.25f, 1.0f}, bias{1.0f, -1.0f, 0.125f};
  std::vector<float> y(6);
  cpu::dequantize_rows(
      {product.data(), token_scale.data(), weight_scale.data(), bias.data(), y.data(), 2, 3, DType::kFloat32}, 0, 2);
  // 16777217 is not a float: it rounds to 16777216 first.
  EXPECT_EQ(y[0], 16777216.0f * 0.5f * 2.0f + 1.0f);
  EXPECT_EQ(y[1], -3.0f * 0.5f * 0.25f - 1.0f);
  EXPECT_EQ(y[2], 0.125f);
  for (int n = 3; n < 6; ++n) EXPECT_TRUE(std::isnan(y[n]));
}

template <typename T>
void expect_one_result_of_every_isa(DType dtype) {
  std::mt19937 rng(11);
  const int64_t cols = 37;  // no multiple of any vector
  std::vector<int32_t> product(3 * cols);
  std::vector<float> token_scale{0.5f, kNan, 1e-30f}, weight_scale(cols);
  std::vector<T> bias(cols);
  for (int32_t& p : product) p = static_cast<int32_t>(rng());
  for (int64_t n = 0; n < cols; ++n) {
    weight_scale[n] = std::ldexp(1.0f, static_cast<int>(rng() % 40) - 30);
    bias[n] = from_float<T>(static_cast<float>(rng() % 100) - 50.0f);
  }
  for (const bool biased : {false, true}) {
    std::vector<T> want(3 * cols), got(3 * cols);
    DequantizeArgs args{
        product.data(), token_scale.data(), weight_scale.data(), biased ? bias.data() : nullptr, want.data(), 3, cols,
        dtype};
    cpu::dequantize_rows_with(Isa::kPortable, args, 0, 3);
    args.y = got.data();
    for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
      if (isa > cpu::best_isa()) continue;
      cpu::dequantize_rows_with(isa, args, 0, 3);
      EXPECT_EQ(std::memcmp(want.data(), got.data(), want.size() * sizeof(T)), 0) << cpu::isa_name(isa);
    }
  }
}

TEST(Dequantize, EveryInstructionSetComputesTheSame) {
  expect_one_result_of_every_isa<float>(DType::kFloat32);
  expect_one_result_of_every_isa<Float16>(DType::kFloat16);
  expect_one_result_of_every_isa<BFloat16>(DType::kBFloat16);
}

}  // namespace
