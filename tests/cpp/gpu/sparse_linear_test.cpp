// The whole sparse linear layer as the operators run it: planned, then run in buffers of exactly the plan's
// sizes, so that the emulated GPU reports an overrun; against fp64 products.
#include "amber/cuda/linear/sparse_linear.h"

#include "amber/cpu/prune/prune.h"
#include "amber/cpu/quantize/quantize.h"
#include "support.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;
using cuda::Operands;

struct Options {
  Pattern pattern;
  int64_t tokens;
  bool bias, scale, smooth;
  Rescale rescale;
};

std::vector<float> factors(int64_t count, unsigned seed) {
  std::vector<float> result = random_normal<float>(count, seed);
  for (float& f : result) f = std::fabs(f) + 0.1f;
  return result;
}

double from_e4m3(uint8_t byte) {
  const int exponent = (byte >> 3) & 15, mantissa = byte & 7;
  const double magnitude = exponent ? std::ldexp(8 + mantissa, exponent - 10) : std::ldexp(mantissa, -9);
  return byte & 0x80 ? -magnitude : magnitude;
}

// A layer of `T`, the dtype of x and the output, and its operands as doubles.
template <typename T>
struct Layer {
  const cuda::SparseGemmKernel& kernel;
  const Options options;
  const bool quantized = kernel.operands != Operands::k16bit;
  const QuantizedType type = kernel.operands == Operands::kE4m3 ? QuantizedType::kE4m3 : QuantizedType::kInt8;
  const int64_t t = options.tokens, n = odd_out_features(kernel), k = 256 + kernel.copies_in_features_multiple;
  const std::vector<T> x = random_normal<T>(t * k, 1), bias = random_normal<T>(n, 2);
  const std::vector<float> smooth = factors(k, 3), scale = factors(k, 4), weight_scale = factors(n, 5);
  const std::vector<T> weight = random_normal<T>(n * k, 6);  // of 16 bits, or rounded to:
  std::vector<uint8_t> weight_8bit = std::vector<uint8_t>(n * k);
  std::vector<double> left = std::vector<double>(t * k), right = std::vector<double>(n * k);
  std::vector<float> token_scale = std::vector<float>(t, 1.0f);

  Layer(const cuda::SparseGemmKernel& kernel, const Options& options) : kernel(kernel), options(options) {
    quantized ? quantize() : prune();
  }

  const float* smooth_pointer() const { return options.smooth ? smooth.data() : nullptr; }
  const float* scale_pointer() const { return options.scale ? scale.data() : nullptr; }

  void prune() {
    std::vector<T> pruned(t * k);
    cpu::prune_rows(
        {x.data(), scale_pointer(), pruned.data(), nullptr, t, k, options.pattern, dtype_of<T>(), options.rescale}, 0,
        t);
    for (size_t i = 0; i < left.size(); ++i) left[i] = to_float(pruned[i]);
    for (size_t i = 0; i < right.size(); ++i) right[i] = to_float(weight[i]);
  }

  double element(uint8_t byte) const {
    return type == QuantizedType::kInt8 ? static_cast<int8_t>(byte) : from_e4m3(byte);
  }

  void quantize() {
    std::vector<uint8_t> values(t * k);
    cpu::quantize_rows({x.data(), smooth_pointer(), scale_pointer(), values.data(), token_scale.data(), t, k,
                        options.pattern, dtype_of<T>(), options.rescale, type},
                       0, t);
    for (size_t i = 0; i < left.size(); ++i) left[i] = element(values[i]);
    for (size_t i = 0; i < right.size(); ++i) {
      const float w = to_float(weight[i]);
      weight_8bit[i] =
          type == QuantizedType::kInt8 ? static_cast<uint8_t>(to_int8(std::fmin(w, 4.0f), 30.0f)) : to_e4m3(w, 100.0f);
      right[i] = element(weight_8bit[i]);
    }
  }

  void expect(const std::vector<T>& y) const {
    // int8 products are exact; e4m3 may be summed in the tensor core's own accumulator.
    const double summing = !quantized ? static_cast<double>(k) * 0x1p-24 : type == QuantizedType::kInt8 ? 0.0 : 0x1p-10;
    const double rounding = std::is_same_v<T, Float16> ? 0x1p-11 : 0x1p-8;
    for (int64_t i = 0; i < t * n; ++i) {
      const int64_t row = i / n, column = i % n;
      double product = 0.0, magnitude = 0.0;
      for (int64_t c = 0; c < k; ++c) {
        const double term = left[row * k + c] * right[column * k + c];
        product += term, magnitude += std::fabs(term);
      }
      const double scales = quantized ? static_cast<double>(token_scale[row]) * weight_scale[column] : 1.0;
      const double want = product * scales + (options.bias ? to_float(bias[column]) : 0.0);
      const double bound = magnitude * scales * (summing + 0x1p-19) + std::fabs(want) * rounding + 1e-6;
      ASSERT_NEAR(to_float(y[i]), want, bound) << "row " << row << " column " << column;
    }
  }
};

// What an operator allocates for a layer.
template <typename T>
struct Memory {
  const Layer<T>& layer;
  const cuda::SparseLinearPlan plan =
      cuda::plan_sparse_linear(layer.kernel.name,
                               {device_arch(), layer.kernel.operands, dtype_of<T>(), layer.options.pattern,
                                layer.options.rescale, layer.t, layer.n, layer.k},
                               device_attribute(cudaDevAttrMultiProcessorCount));
  const DeviceArray<T> x{layer.x}, bias{layer.bias};
  const DeviceArray<float> smooth{layer.smooth}, scale{layer.scale}, weight_scale{layer.weight_scale};
  const DeviceArray<T> weight{widen_weight(layer.weight, layer.k, layer.options.pattern)};
  const DeviceArray<uint8_t> weight_8bit{widen_weight(layer.weight_8bit, layer.k, layer.options.pattern)};
  const DeviceArray<uint8_t> values = scratch(plan.values_bytes), metadata = scratch(plan.metadata_bytes),
                             token_scale = scratch(plan.token_scale_bytes), workspace = scratch(plan.workspace_bytes);
  const DeviceArray<T> output = DeviceArray<T>(plan.rows * layer.n);

  explicit Memory(const Layer<T>& layer) : layer(layer) {}

  static DeviceArray<uint8_t> scratch(int64_t bytes) { return DeviceArray<uint8_t>(static_cast<size_t>(bytes)); }

  cuda::SparseLinearBuffers buffers() const {
    const bool quantized = layer.quantized;
    return {x.get(),
            quantized ? static_cast<void*>(weight_8bit.get()) : weight.get(),
            quantized ? weight_scale.get() : nullptr,
            layer.options.bias ? bias.get() : nullptr,
            layer.options.smooth ? smooth.get() : nullptr,
            layer.options.scale ? scale.get() : nullptr,
            values.get(),
            metadata.get(),
            quantized ? reinterpret_cast<float*>(token_scale.get()) : nullptr,
            workspace.get(),
            output.get()};
  }
};

template <typename T>
void expect_right(const cuda::SparseGemmKernel& kernel, const Options& options) {
  SCOPED_TRACE(testing::Message() << options.pattern.n << ":" << options.pattern.m << " T " << options.tokens
                                  << (options.bias ? " with" : " without") << " bias and factors");
  const Layer<T> layer(kernel, options);
  const Memory<T> memory(layer);
  ASSERT_EQ(memory.plan.refusal, "");
  ASSERT_EQ(memory.plan.kernel, &kernel);
  ASSERT_EQ(cuda::run_sparse_linear(memory.plan, memory.buffers(), nullptr), "");
  check(cudaDeviceSynchronize());
  layer.expect(memory.output.download());
}

// Captured, so that a launch on another stream would show: the output must stay as it is until the replay.
template <typename T>
void expect_captured(const cuda::SparseGemmKernel& kernel) {
  const Layer<T> layer(kernel, {{2, 4}, 3, true, true, kernel.operands != Operands::k16bit, Rescale::kNone});
  const Memory<T> memory(layer);
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  // Once before the capture, for kernels load lazily; and into memory that is poisoned again.
  ASSERT_EQ(cuda::run_sparse_linear(memory.plan, memory.buffers(), stream), "");
  check(cudaStreamSynchronize(stream));
  std::vector<T> poison(memory.plan.rows * layer.n);
  std::memset(poison.data(), 0xff, poison.size() * sizeof(T));
  check(cudaMemcpy(memory.output.get(), poison.data(), poison.size() * sizeof(T), cudaMemcpyHostToDevice));
  check(cudaMemset(memory.values.get(), 0xff, memory.plan.values_bytes));

  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  ASSERT_EQ(cuda::run_sparse_linear(memory.plan, memory.buffers(), stream), "");
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaDeviceSynchronize());
  const std::vector<uint8_t> untouched = memory.values.download();
  EXPECT_EQ(untouched, std::vector<uint8_t>(untouched.size(), 0xff));
  EXPECT_TRUE(std::isnan(to_float(memory.output.download()[0])));
  check(cudaGraphInstantiate(&executable, graph, 0));
  check(cudaGraphLaunch(executable, stream));
  check(cudaStreamSynchronize(stream));
  layer.expect(memory.output.download());
  check(cudaGraphExecDestroy(executable));
  check(cudaGraphDestroy(graph));
  check(cudaStreamDestroy(stream));
}

class GpuSparseLinear : public testing::TestWithParam<const cuda::SparseGemmKernel*> {
 protected:
  void SetUp() override {
    AMBER_NEEDS_GPU();
    if (!kernel().runs_on(device_arch())) {
      GTEST_SKIP() << "for SM" << kernel().arch << ", but the device has compute capability " << device_arch();
    }
  }
  const cuda::SparseGemmKernel& kernel() const { return *GetParam(); }
  bool fp16() const { return kernel().dtype == DType::kFloat16; }
};

TEST_P(GpuSparseLinear, EveryPattern) {
  const bool quantized = kernel().operands != Operands::k16bit;
  for (const SparsePattern& sparse : kSparsePatterns) {
    for (int64_t tokens : {1, 65}) {
      const Options plain{sparse.pattern, tokens, false, false, false, Rescale::kNone};
      const Rescale rescale = kernel().rescales ? Rescale::kVariance : Rescale::kNone;
      const Options all{sparse.pattern, tokens, true, true, quantized, rescale};
      for (const Options& options : {plain, all}) {
        fp16() ? expect_right<Float16>(kernel(), options) : expect_right<BFloat16>(kernel(), options);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_P(GpuSparseLinear, LaunchesOnItsStreamAlone) {
  fp16() ? expect_captured<Float16>(kernel()) : expect_captured<BFloat16>(kernel());
}

INSTANTIATE_TEST_SUITE_P(Kernel, GpuSparseLinear, testing::ValuesIn(cuda::sparse_gemm_kernels()),
                         [](const auto& info) { return std::string(info.param->name); });

}  // namespace
