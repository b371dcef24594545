// Pruning and quantising as the operator runs them, bit for bit against the CPU, in scratch of exactly the
// plan's size.
#include "amber/cuda/masked/prune_quantize.h"

#include "amber/cpu/quantize/quantize.h"
#include "support.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

std::vector<float> factors(int64_t count, unsigned seed) {
  std::vector<float> result = random_normal<float>(count, seed);
  for (float& f : result) f = std::fabs(f) + 0.1f;
  return result;
}

template <typename T>
void expect_the_cpus(Pattern pattern, QuantizedType type, Rescale rescale, bool with_factors) {
  SCOPED_TRACE(testing::Message() << pattern.n << ":" << pattern.m << (with_factors ? " with factors" : ""));
  const int64_t rows = 5, cols = 336;
  const auto x = rescale == Rescale::kNone ? random_awkward<T>(rows * cols, 1) : random_normal<T>(rows * cols, 1);
  const auto smooth = factors(cols, 2), scale = factors(cols, 3);
  std::vector<uint8_t> want(x.size());
  std::vector<float> want_scale(rows);
  QuantizeArgs args{x.data(),
                    with_factors ? smooth.data() : nullptr,
                    with_factors ? scale.data() : nullptr,
                    want.data(),
                    want_scale.data(),
                    rows,
                    cols,
                    pattern,
                    dtype_of<T>(),
                    rescale,
                    type};
  cpu::quantize_rows(args, 0, rows);

  const cuda::PruneQuantizePlan plan = cuda::plan_prune_quantize(args);
  ASSERT_EQ(plan.refusal, "");
  const DeviceArray<T> device_x(x);
  const DeviceArray<float> device_smooth(smooth), device_scale(scale), token_scale(rows);
  const DeviceArray<uint8_t> values(x.size()), pruned(plan.pruned_bytes);
  args.x = device_x.get();
  if (with_factors) args.smooth = device_smooth.get(), args.scale = device_scale.get();
  args.values = values.get(), args.token_scale = token_scale.get();
  ASSERT_EQ(cuda::run_prune_quantize(args, plan.pruned_bytes ? pruned.get() : nullptr, nullptr), "");
  check(cudaDeviceSynchronize());
  EXPECT_EQ(values.download(), want);
  const std::vector<float> got_scale = token_scale.download();
  for (int64_t t = 0; t < rows; ++t) {
    if (std::isnan(want_scale[t])) {
      EXPECT_TRUE(std::isnan(got_scale[t])) << t;
    } else {
      EXPECT_NEAR(got_scale[t], want_scale[t], rescale == Rescale::kNone ? 0.0f : want_scale[t] * 1e-6f) << t;
    }
  }
}

TEST(GpuPruneQuantize, IsTheCpusBitForBit) {
  AMBER_NEEDS_GPU();
  for (Pattern pattern : {Pattern{2, 4}, {8, 16}, {12, 16, true}, {3, 7}, {1, 1}}) {
    for (auto rescale : {Rescale::kNone, Rescale::kVariance}) {
      for (bool with_factors : {false, true}) {
        expect_the_cpus<float>(pattern, QuantizedType::kInt8, rescale, with_factors);
        expect_the_cpus<Float16>(pattern, QuantizedType::kE4m3, rescale, with_factors);
        expect_the_cpus<BFloat16>(pattern, QuantizedType::kInt8, rescale, with_factors);
      }
    }
  }
}

QuantizeArgs sized(int64_t rows, int64_t cols, Pattern pattern, DType dtype) {
  QuantizeArgs args{};
  args.rows = rows, args.cols = cols, args.pattern = pattern, args.dtype = dtype;
  return args;
}

TEST(PruneQuantizePlan, SizesAndRefusals) {
  EXPECT_EQ(cuda::plan_prune_quantize(sized(3, 64, {2, 4}, DType::kFloat32)).pruned_bytes, 768);
  EXPECT_EQ(cuda::plan_prune_quantize(sized(3, 64, {2, 4}, DType::kBFloat16)).pruned_bytes, 384);
  EXPECT_EQ(cuda::plan_prune_quantize(sized(3, 64, {4, 4}, DType::kFloat32)).pruned_bytes, 0);
  EXPECT_EQ(cuda::plan_prune_quantize(sized(0, 64, {2, 4}, DType::kFloat32)).pruned_bytes, 0);
  EXPECT_EQ(cuda::plan_prune_quantize(sized(3, 12, {2, 4}, DType::kFloat16)).refusal,
            "x: its last dimension K = 12 is not a multiple of 8, which the CUDA kernel needs");
}

TEST(PruneQuantizeRun, AnEmptyProblemLaunchesNothingAndAFailureNamesItsStep) {
  EXPECT_EQ(cuda::run_prune_quantize(sized(0, 64, {2, 4}, DType::kFloat16), nullptr, nullptr), "");
  EXPECT_EQ(cuda::run_prune_quantize(sized(3, 0, {2, 4}, DType::kFloat16), nullptr, nullptr), "");
  EXPECT_EQ(cuda::run_prune_quantize(sized(3, 12, {1, 1}, DType::kFloat16), nullptr, nullptr),
            "quantize_activations: CUDA error: invalid argument");
}

}  // namespace
