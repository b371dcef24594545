// 8-bit quantisation before a dense product and the scales after it, on a GPU: bit for bit against the CPU.
#include "amber/cuda/masked/quantize.h"

#include <cmath>
#include <cstring>

#include "amber/cpu/prune/prune.h"
#include "amber/cpu/quantize/quantize.h"
#include "support.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

struct QuantizeCase {
  DType dtype;
  QuantizedType type;
  Rescale rescale;

  std::string name() const {
    return name_of(dtype) + (type == QuantizedType::kInt8 ? "_int8" : "_e4m3") +
           (rescale == Rescale::kNone ? "" : "_rescaled");
  }
};

std::vector<QuantizeCase> quantize_cases() {
  std::vector<QuantizeCase> cases;
  for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    for (auto type : {QuantizedType::kInt8, QuantizedType::kE4m3}) {
      for (auto rescale : {Rescale::kNone, Rescale::kVariance}) cases.push_back({dtype, type, rescale});
    }
  }
  return cases;
}

class GpuQuantize : public testing::TestWithParam<QuantizeCase> {
 protected:
  void SetUp() override { AMBER_NEEDS_GPU(); }
};

template <typename T>
void check_dense(const QuantizeCase& which, int64_t rows, int64_t cols, size_t offset, bool smoothed) {
  SCOPED_TRACE(testing::Message() << rows << " x " << cols << " offset " << offset << " smoothed " << smoothed);
  const bool rescaled = which.rescale == Rescale::kVariance;
  const auto x = rescaled ? random_normal<T>(rows * cols, 3) : random_tokens<T>(rows, cols, 3);
  const auto smooth = random_factors(cols, 4);
  std::vector<T> pruned(x.size());
  cpu::prune_rows({x.data(), nullptr, pruned.data(), nullptr, rows, cols, {4, 8}, dtype_of<T>(), Rescale::kNone}, 0,
                  rows);
  std::vector<uint8_t> want(x.size());
  std::vector<float> want_scale(rows);
  QuantizeArgs args{x.data(),
                    smoothed ? smooth.data() : nullptr,
                    nullptr,
                    want.data(),
                    want_scale.data(),
                    rows,
                    cols,
                    {4, 8},
                    dtype_of<T>(),
                    which.rescale,
                    which.type};
  cpu::quantize_rows(args, 0, rows);

  const DeviceArray<T> device_x(x, offset), device_pruned(pruned, offset);
  const DeviceArray<float> device_smooth(smooth, offset), scale(rows, offset);
  const DeviceArray<uint8_t> values(x.size(), offset);
  args.x = device_pruned.get(), args.smooth = smoothed ? device_smooth.get() : nullptr;
  args.values = values.get(), args.token_scale = scale.get();
  check(cuda::quantize_pruned(args, rescaled ? device_x.get() : nullptr, nullptr));
  EXPECT_EQ(values.download(), want);
  const std::vector<float> got_scale = scale.download();
  for (int64_t t = 0; t < rows; ++t) {
    if (std::isnan(want_scale[t])) {
      EXPECT_TRUE(std::isnan(got_scale[t])) << t;
    } else {
      EXPECT_NEAR(got_scale[t], want_scale[t], rescaled ? want_scale[t] * 1e-6f : 0.0f) << t;
    }
  }
}

TEST_P(GpuQuantize, IsTheCpusBitForBit) {
  with_element(GetParam().dtype, [&](auto element) {
    using T = decltype(element);
    check_dense<T>(GetParam(), 1, 8, 0, true);
    check_dense<T>(GetParam(), 5, 264, 16, false);
    check_dense<T>(GetParam(), 33, 4096, 48, true);
    check_dense<T>(GetParam(), 3, 14336, 0, true);
  });
}

INSTANTIATE_TEST_SUITE_P(, GpuQuantize, testing::ValuesIn(quantize_cases()), ByName());

template <typename T>
void check_dequantize(int64_t rows, int64_t cols, bool biased, size_t offset) {
  SCOPED_TRACE(testing::Message() << rows << " x " << cols << " bias " << biased << " offset " << offset);
  std::mt19937 rng(6);
  std::vector<int32_t> product(rows * cols);
  for (int32_t& value : product) value = static_cast<int32_t>(rng());
  const auto token_scale = random_factors(rows, 1), weight_scale = random_factors(cols, 2);
  const auto bias = random_normal<T>(cols, 3);
  std::vector<T> want(product.size());
  DequantizeArgs args{
      product.data(), token_scale.data(), weight_scale.data(), biased ? bias.data() : nullptr, want.data(), rows,
      cols,           dtype_of<T>()};
  cpu::dequantize_rows(args, 0, rows);
  const DeviceArray<int32_t> device_product(product, offset);
  const DeviceArray<float> device_token(token_scale, offset), device_weight(weight_scale, offset);
  const DeviceArray<T> device_bias(bias, offset), y(want.size(), offset);
  args.product = device_product.get(), args.token_scale = device_token.get();
  args.weight_scale = device_weight.get(), args.bias = biased ? device_bias.get() : nullptr, args.y = y.get();
  check(cuda::dequantize(args, nullptr));
  const std::vector<T> got = y.download();
  EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(T)), 0);
}

template <typename T>
class GpuDequantize : public testing::Test {};
struct DTypeNames {
  template <typename T>
  static std::string GetName(int) {
    return name_of(dtype_of<T>());
  }
};
using DTypes = testing::Types<float, Float16, BFloat16>;
TYPED_TEST_SUITE(GpuDequantize, DTypes, DTypeNames);

TYPED_TEST(GpuDequantize, IsTheCpusBitForBit) {
  AMBER_NEEDS_GPU();
  check_dequantize<TypeParam>(37, 264, true, 0);
  check_dequantize<TypeParam>(1, 8, true, 16);
  check_dequantize<TypeParam>(3, 1032, false, 48);
}

TEST(GpuQuantizeRefusals, ColumnsBetweenMultiplesAndMissingTokens) {
  QuantizeArgs quantize{};
  quantize.rows = 4, quantize.cols = 12, quantize.dtype = DType::kFloat16;
  EXPECT_EQ(cuda::quantize_pruned(quantize, nullptr, nullptr), cudaErrorInvalidValue);
  quantize.cols = 16, quantize.rescale = Rescale::kVariance;
  EXPECT_EQ(cuda::quantize_pruned(quantize, nullptr, nullptr), cudaErrorInvalidValue) << "no tokens before pruning";
  quantize.rows = 0;
  EXPECT_EQ(cuda::quantize_pruned(quantize, nullptr, nullptr), cudaSuccess) << "launches nothing";
  DequantizeArgs dequantize{};
  dequantize.rows = 4, dequantize.cols = 12, dequantize.dtype = DType::kFloat16;
  EXPECT_EQ(cuda::dequantize(dequantize, nullptr), cudaErrorInvalidValue);
  dequantize.cols = 0;
  EXPECT_EQ(cuda::dequantize(dequantize, nullptr), cudaSuccess) << "launches nothing";
}

}  // namespace
