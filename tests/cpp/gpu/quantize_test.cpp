// 8-bit quantisation, compression and sparse GEMMs on a GPU: bit for bit against the CPU where integers
// decide, against fp64 elsewhere.
#include <algorithm>
#include <cstring>

#include "amber/cpu/compress/compress.h"
#include "amber/cpu/prune/prune.h"
#include "amber/cpu/quantize/quantize.h"
#include "amber/cuda/compress/quantize_compress.h"
#include "amber/cuda/masked/quantize.h"
#include "amber/cuda/sparse_gemm/sparse_gemm.h"
#include "support.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

std::vector<float> factors(int64_t count, unsigned seed) {
  std::vector<float> result = random_normal<float>(count, seed);
  for (float& f : result) f = std::fabs(f) + 0.1f;
  return result;
}

// NaNs are equal to each other; `tolerance` is relative.
void expect_scales(const std::vector<float>& got, const std::vector<float>& want, float tolerance) {
  for (size_t t = 0; t < want.size(); ++t) {
    if (std::isnan(want[t])) {
      EXPECT_TRUE(std::isnan(got[t])) << t;
    } else {
      EXPECT_NEAR(got[t], want[t], want[t] * tolerance) << t;
    }
  }
}

template <typename T>
void check_dense(int64_t rows, int64_t cols, QuantizedType type, Rescale rescale) {
  SCOPED_TRACE(testing::Message() << rows << " x " << cols);
  const auto x = rescale == Rescale::kVariance ? random_normal<T>(rows * cols, 3) : random_awkward<T>(rows * cols, 3);
  const auto smooth = factors(cols, 4);
  std::vector<T> pruned(x.size());
  cpu::prune_rows({x.data(), nullptr, pruned.data(), nullptr, rows, cols, {4, 8}, dtype_of<T>(), Rescale::kNone}, 0,
                  rows);
  std::vector<uint8_t> want(x.size());
  std::vector<float> want_scale(rows);
  QuantizeArgs args{x.data(), smooth.data(), nullptr, want.data(), want_scale.data(), rows, cols,
                    {4, 8},   dtype_of<T>(), rescale, type};
  cpu::quantize_rows(args, 0, rows);

  const DeviceArray<T> device_x(x), device_pruned(pruned);
  const DeviceArray<float> device_smooth(smooth), scale(rows);
  const DeviceArray<uint8_t> values(x.size());
  args.x = device_pruned.get(), args.smooth = device_smooth.get();
  args.values = values.get(), args.token_scale = scale.get();
  check(cuda::quantize_pruned(args, device_x.get(), nullptr));
  EXPECT_EQ(values.download(), want);
  expect_scales(scale.download(), want_scale, rescale == Rescale::kVariance ? 1e-6f : 0.0f);
}

TEST(GpuQuantize, DenseIsTheCpusBitForBit) {
  AMBER_NEEDS_GPU();
  for (auto type : {QuantizedType::kInt8, QuantizedType::kE4m3}) {
    for (auto rescale : {Rescale::kNone, Rescale::kVariance}) {
      check_dense<float>(5, 264, type, rescale);
      check_dense<Float16>(33, 4096, type, rescale);
      check_dense<BFloat16>(1, 14336, type, rescale);
    }
  }
}

template <typename T>
void check_dequantize() {
  const int64_t rows = 37, cols = 264;
  std::mt19937 rng(6);
  std::vector<int32_t> product(rows * cols);
  for (int32_t& value : product) value = static_cast<int32_t>(rng());
  const auto token_scale = factors(rows, 1), weight_scale = factors(cols, 2);
  const auto bias = random_normal<T>(cols, 3);
  std::vector<T> want(product.size());
  DequantizeArgs args{product.data(), token_scale.data(), weight_scale.data(), bias.data(), want.data(), rows,
                      cols,           dtype_of<T>()};
  cpu::dequantize_rows(args, 0, rows);
  const DeviceArray<int32_t> device_product(product);
  const DeviceArray<float> device_token(token_scale), device_weight(weight_scale);
  const DeviceArray<T> device_bias(bias), y(want.size());
  args = {device_product.get(), device_token.get(), device_weight.get(), device_bias.get(), y.get(), rows, cols,
          dtype_of<T>()};
  check(cuda::dequantize(args, nullptr));
  const std::vector<T> got = y.download();
  EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(T)), 0);
}

TEST(GpuQuantize, DequantizeIsTheCpusBitForBit) {
  AMBER_NEEDS_GPU();
  check_dequantize<float>();
  check_dequantize<Float16>();
  check_dequantize<BFloat16>();
}

// A sparse 8-bit linear layer, quantisation and compression included.
template <typename T>
struct Layer {
  int64_t t, n, k;
  QuantizedType type;
  Pattern pattern;
  std::vector<T> x, bias;
  std::vector<uint8_t> weight, values;  // values [t, k]: pruned, dense form
  std::vector<float> smooth, scale, weight_scale, token_scale;

  Layer(int64_t t, int64_t n, int64_t k, QuantizedType type, Pattern pattern)
      : t(t),
        n(n),
        k(k),
        type(type),
        pattern(pattern),
        x(random_awkward<T>(t * k, 11)),
        bias(random_normal<T>(n, 12)),
        weight(n * k),
        values(t * k),
        smooth(factors(k, 13)),
        scale(factors(k, 14)),
        weight_scale(factors(n, 15)),
        token_scale(t) {
    std::mt19937 rng(16);
    for (int64_t row = 0; row < t; ++row) {
      // NaN and Inf in every third token; zeros in one; the rest finite.
      for (int64_t c = 0; c < k; ++c) {
        T& value = x[row * k + c];
        if (row % 3 != 2 && !std::isfinite(to_float(value))) value = from_float<T>(1.0f);
        if (row == 4) value = T{};
      }
    }
    for (uint8_t& w : weight)
      w = type == QuantizedType::kInt8 ? static_cast<uint8_t>(static_cast<int>(rng() % 255) - 127)
                                       : to_e4m3(static_cast<float>(rng() % 897) - 448.0f, 1.0f);
    cpu::quantize_rows({x.data(), smooth.data(), scale.data(), values.data(), token_scale.data(), t, k, pattern,
                        dtype_of<T>(), Rescale::kNone, type},
                       0, t);
  }

  double element(uint8_t byte) const {
    if (type == QuantizedType::kInt8) return static_cast<int8_t>(byte);
    const int exponent = (byte >> 3) & 15, mantissa = byte & 7;
    const double magnitude = exponent ? std::ldexp(8 + mantissa, exponent - 10) : std::ldexp(mantissa, -9);
    return byte & 0x80 ? -magnitude : magnitude;
  }

  void expect(const std::vector<T>& y) const {
    const double rounding = std::is_same_v<T, Float16> ? 0x1p-11 : 0x1p-8;
    std::mt19937 rng(9);
    const int64_t samples = std::min<int64_t>(t * n, 20000);
    for (int64_t s = 0; s < samples; ++s) {
      const int64_t i = samples == t * n ? s : static_cast<int64_t>(rng() % static_cast<uint64_t>(t * n));
      const int64_t row = i / n, column = i % n;
      double product = 0.0, magnitude = 0.0;
      for (int64_t c = 0; c < k; ++c) {
        const double term = element(values[row * k + c]) * element(weight[column * k + c]);
        product += term, magnitude += std::fabs(term);
      }
      const double scales = static_cast<double>(token_scale[row]) * weight_scale[column];
      const double want = product * scales + to_float(bias[column]);
      if (std::isnan(want)) {
        ASSERT_TRUE(std::isnan(to_float(y[i]))) << "row " << row;
        continue;
      }
      // int8 products are exact, so only the scaling rounds; e4m3 may use the fast accumulator.
      const double product_error = type == QuantizedType::kInt8 ? 0.0 : magnitude * 0x1p-10;
      const double bound =
          product_error * scales + std::fabs(want) * rounding + std::fabs(product * scales) * 0x1p-21 + 1e-6;
      if (std::fabs(want) > 60000.0 && std::is_same_v<T, Float16>) continue;  // overflows fp16
      ASSERT_NEAR(to_float(y[i]), want, bound) << "row " << row << " column " << column;
    }
  }
};

template <typename T>
void check_kernel(const cuda::SparseGemmKernel& kernel, int64_t t, int64_t n, int64_t k, cudaStream_t stream,
                  Pattern pattern = {2, 4}) {
  SCOPED_TRACE(testing::Message() << kernel.name << " " << pattern.n << ":" << pattern.m << " T " << t << " N " << n
                                  << " K " << k);
  const int extra = extra_windows(pattern);
  const int64_t wide_k = widened_cols(k, extra);
  const QuantizedType type = kernel.operands == cuda::Operands::kInt8 ? QuantizedType::kInt8 : QuantizedType::kE4m3;
  const Layer<T> layer(t, n, k, type, pattern);
  const int64_t rows = kernel.padded_rows ? metadata_rows(kernel.layout, t) : t;
  const DeviceArray<T> x(layer.x), bias(layer.bias), output(rows * n);
  const DeviceArray<uint8_t> weight(widen_weight(layer.weight, k, pattern)), values(rows * wide_k / 2),
      metadata(metadata_bytes(kernel.layout, t, wide_k));
  const DeviceArray<float> smooth(layer.smooth), scale(layer.scale), weight_scale(layer.weight_scale),
      token_scale(rows);
  check(cuda::quantize_compress({x.get(), smooth.get(), scale.get(), values.get(), metadata.get(), token_scale.get(), t,
                                 k, rows, dtype_of<T>(), kernel.layout, type, false, pattern},
                                stream));

  std::vector<uint8_t> mask(t * k), wide(t * wide_k), wide_mask(t * wide_k), want_values(t * wide_k / 2),
      want_metadata(metadata_bytes(kernel.layout, t, wide_k));
  cpu::prune_rows(
      {layer.x.data(), layer.scale.data(), nullptr, mask.data(), t, k, pattern, dtype_of<T>(), Rescale::kNone}, 0, t);
  ASSERT_EQ(cpu::widen(layer.values.data(), mask.data(), t, k, 1, extra, wide.data(), wide_mask.data()), Status::kOk);
  ASSERT_EQ(cpu::compress_2_4(wide.data(), wide_mask.data(), t, wide_k, 1, kernel.layout, want_values.data(),
                              want_metadata.data()),
            Status::kOk);
  want_values.resize(rows * wide_k / 2, 0);
  check(cudaStreamSynchronize(stream));
  ASSERT_EQ(values.download(), want_values);
  ASSERT_EQ(metadata.download(), want_metadata);

  cuda::SparseGemmArgs args{values.get(),
                            metadata.get(),
                            weight.get(),
                            bias.get(),
                            output.get(),
                            t,
                            n,
                            wide_k,
                            device_attribute(cudaDevAttrMultiProcessorCount),
                            token_scale.get(),
                            weight_scale.get()};
  const DeviceArray<uint8_t> workspace(kernel.workspace_bytes(args));
  ASSERT_EQ(kernel.run(args, workspace.get(), stream), cuda::GemmStatus::kOk);
  check(cudaStreamSynchronize(stream));
  layer.expect(output.download());
}

template <typename T>
void check_kernels() {
  int ran = 0;
  for (const cuda::SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    if (!kernel->runs_on(device_arch()) || kernel->dtype != dtype_of<T>()) continue;
    if (kernel->operands == cuda::Operands::k16bit) continue;
    ++ran;
    const int64_t n = odd_out_features(*kernel);
    for (int64_t t : {1, 63, 64, 65, 1000}) check_kernel<T>(*kernel, t, n, 512, nullptr);
    check_kernel<T>(*kernel, 130, 1024, 14336, nullptr);
    for (Pattern pattern : {Pattern{4, 8}, {8, 16}, {10, 16, true}, {12, 16, true}}) {
      check_kernel<T>(*kernel, 130, n, 1568, nullptr, pattern);
    }
    if (testing::Test::HasFailure()) return;
  }
  if (ran == 0) GTEST_SKIP() << "this build has no 8-bit sparse GEMM for compute capability " << device_arch();
}

TEST(GpuSparseGemm8bit, BFloat16) {
  AMBER_NEEDS_GPU();
  check_kernels<BFloat16>();
}
TEST(GpuSparseGemm8bit, Float16) {
  AMBER_NEEDS_GPU();
  check_kernels<Float16>();
}

TEST(GpuSparseGemm8bit, SideStream) {
  AMBER_NEEDS_GPU();
  const auto* kernel = cuda::default_sparse_gemm(device_arch(), cuda::Operands::kInt8, DType::kBFloat16);
  if (!kernel) GTEST_SKIP() << "this build has no int8 sparse GEMM for compute capability " << device_arch();
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  check_kernel<BFloat16>(*kernel, 130, 256, 512, stream);
  check(cudaStreamDestroy(stream));
}

TEST(GpuQuantize, RefusesWhatItCannotDo) {
  // Before any launch, so no GPU is needed.
  cuda::QuantizeCompressArgs args{};
  args.rows = args.value_rows = 1, args.cols = 48, args.dtype = DType::kBFloat16,
  args.layout = MetadataLayout::kSm90_8bit;
  EXPECT_EQ(cuda::quantize_compress(args, nullptr), cudaErrorInvalidValue);  // K % 32
  args.cols = cuda::kMaxQuantizeColumns + 32;
  EXPECT_EQ(cuda::quantize_compress(args, nullptr), cudaErrorInvalidValue);
  args.cols = 64, args.layout = MetadataLayout::kSm90_16bit;
  EXPECT_EQ(cuda::quantize_compress(args, nullptr), cudaErrorInvalidValue);
  args.layout = MetadataLayout::kSm90_8bit, args.dtype = DType::kFloat32;
  EXPECT_EQ(cuda::quantize_compress(args, nullptr), cudaErrorInvalidValue);
}

}  // namespace
