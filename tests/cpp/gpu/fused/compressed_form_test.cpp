// A compressed form and the product that reads it, as two operators run them: bit for bit what one operator makes of
// the same rows.
#include "amber/cuda/linear/compressed_form.h"

#include "amber/cuda/compress/sources/silu_mul.h"
#include "amber/cuda/linear/sparse_linear.h"
#include "support.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;
using cuda::Operands;

constexpr int64_t kOutputs = 272, kChannels = 512;

DeviceArray<uint8_t> scratch(int64_t bytes) { return DeviceArray<uint8_t>(static_cast<size_t>(bytes)); }

template <typename T>
void check_form(Operands operands, Pattern pattern, int64_t tokens) {
  SCOPED_TRACE(testing::Message() << cuda::describe(operands) << " " << pattern.n << ":" << pattern.m << " T "
                                  << tokens);
  const bool quantized = operands != Operands::k16bit;
  const Rescale rescale = quantized ? Rescale::kVariance : Rescale::kNone;
  const int multiprocessors = device_attribute(cudaDevAttrMultiProcessorCount);
  cuda::SparseProblem problem{device_arch(), operands, dtype_of<T>(), pattern, rescale, tokens, kOutputs, kChannels};
  const auto seed = static_cast<unsigned>(tokens);
  const std::vector<T> gate = random_normal<T>(tokens * kChannels, seed), up = random_normal<T>(gate.size(), seed + 1);
  std::vector<T> rows(gate.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = cuda::silu_mul(gate[i], up[i]);
  const int64_t wide = widened_cols(kChannels, extra_windows(pattern));
  std::vector<uint8_t> bytes(kOutputs * wide * (quantized ? 1 : 2));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7 % 53);  // small numbers in any dtype
  const DeviceArray<uint8_t> weight(bytes);
  const DeviceArray<T> x(rows), device_gate(gate), device_up(up), bias(random_normal<T>(kOutputs, 5));
  const DeviceArray<float> scale(random_factors(kChannels, 6)), smooth(random_factors(kChannels, 7)),
      weight_scale(random_factors(kOutputs, 8));
  cuda::SparseLinearBuffers buffers{};
  buffers.weight = weight.get(), buffers.bias = bias.get(), buffers.scale = scale.get();
  if (quantized) buffers.weight_scale = weight_scale.get(), buffers.smooth = smooth.get();

  // One operator, of rows in memory.
  const cuda::SparseLinearPlan plan = cuda::plan_sparse_linear(cuda::kDefaultSparseGemm, problem, multiprocessors);
  ASSERT_EQ(plan.refusal, "");
  const DeviceArray<uint8_t> values = scratch(plan.values_bytes), metadata = scratch(plan.metadata_bytes),
                             workspace = scratch(plan.workspace_bytes);
  const DeviceArray<float> token_scale(plan.rows);
  const DeviceArray<T> want(plan.rows * kOutputs);
  buffers.x = x.get(), buffers.values = values.get(), buffers.metadata = metadata.get();
  if (quantized) buffers.token_scale = token_scale.get();
  buffers.workspace = workspace.get(), buffers.output = want.get();
  ASSERT_EQ(cuda::run_sparse_linear(plan, buffers, nullptr), "");

  // Two operators.
  const auto type = operands == Operands::kE4m3 ? QuantizedType::kE4m3 : QuantizedType::kInt8;
  const cuda::FormPlan form = cuda::plan_form({dtype_of<T>(), quantized ? std::optional(type) : std::nullopt,
                                               plan.kernel->layout, pattern, rescale, tokens, kChannels});
  ASSERT_EQ(form.refusal, "");
  ASSERT_EQ(form.rows, plan.rows);
  ASSERT_EQ(form.metadata_bytes, plan.metadata_bytes);
  ASSERT_EQ(form.rows * form.wide_cols / 2 * (quantized ? 1 : 2), plan.values_bytes);
  const DeviceArray<uint8_t> form_values = scratch(plan.values_bytes), form_metadata = scratch(form.metadata_bytes);
  const DeviceArray<float> form_scale(form.rows);
  ASSERT_EQ(cuda::run_silu_mul_form(form,
                                    {device_gate.get(), device_up.get(), buffers.smooth, scale.get(), form_values.get(),
                                     form_metadata.get(), form_scale.get()},
                                    nullptr),
            "");
  problem.tokens = form.rows;  // the form's rows are all that the product knows of
  problem.in_features = form.wide_cols / (4 + extra_windows(pattern)) * 4;
  problem.rescale = Rescale::kNone;
  const cuda::SparseLinearPlan product = cuda::plan_sparse_linear(cuda::kDefaultSparseGemm, problem, multiprocessors);
  ASSERT_EQ(product.refusal, "");
  ASSERT_EQ(product.metadata_bytes, form.metadata_bytes);
  const DeviceArray<uint8_t> product_workspace = scratch(product.workspace_bytes);
  const DeviceArray<T> got(product.rows * kOutputs);
  buffers.values = form_values.get(), buffers.metadata = form_metadata.get();
  if (quantized) buffers.token_scale = form_scale.get();
  buffers.workspace = product_workspace.get(), buffers.output = got.get();
  ASSERT_EQ(cuda::run_sparse_product(product, buffers, nullptr), "");

  EXPECT_EQ(form_values.download(), values.download());
  EXPECT_EQ(form_metadata.download(), metadata.download());
  const std::vector<T> a = got.download(), b = want.download();
  for (int64_t i = 0; i < tokens * kOutputs; ++i) ASSERT_EQ(a[i].bits, b[i].bits) << i;
}

TEST(GpuCompressedForm, ProductsAreThoseOfOneOperator) {
  AMBER_NEEDS_GPU();
  for (Operands operands : {Operands::k16bit, Operands::kInt8, Operands::kE4m3}) {
    if (!cuda::default_sparse_gemm(device_arch(), operands, DType::kBFloat16)) continue;
    for (Pattern pattern : {Pattern{2, 4}, Pattern{12, 16, true}}) {
      for (int64_t tokens : {1, 65}) check_form<BFloat16>(operands, pattern, tokens);
    }
  }
}

TEST(CompressedForm, Refusals) {
  const cuda::FormProblem fine{
      DType::kBFloat16, std::nullopt, MetadataLayout::kSm90_16bit, {2, 4}, Rescale::kNone, 5, 64};
  EXPECT_EQ(cuda::plan_form(fine).refusal, "");
  const auto refusal = [&](auto change) {
    cuda::FormProblem problem = fine;
    change(problem);
    return cuda::plan_form(problem).refusal;
  };
  EXPECT_EQ(refusal([](auto& p) { p.dtype = DType::kFloat32; }),
            "dtype: float32 has no compressed form on CUDA; allowed: float16, bfloat16");
  EXPECT_EQ(refusal([](auto& p) { p.pattern = {1, 4}; }),
            "pattern: '1:4' has no compressed form on CUDA; allowed: '2:4', '4:8', '8:16', '10:16w', '12:16w'");
  EXPECT_EQ(refusal([](auto& p) { p.rescale = Rescale::kVariance; }),
            "rescale: 'variance' does not run on 16-bit values on CUDA; allowed: 'none'");
  EXPECT_EQ(refusal([](auto& p) { p.in_features = 24; }),
            "gate: its last dimension K = 24 is not allowed; it must be a multiple of 16");
  EXPECT_EQ(refusal([](auto& p) { p.in_features = 48, p.pattern = {8, 16}; }),
            "gate: its last dimension K = 48 is not allowed; it must be a multiple of 32");
  EXPECT_EQ(refusal([](auto& p) { p.in_features = 0; }),
            "gate: its last dimension K = 0 is not allowed; it must be a multiple of 16");
  EXPECT_EQ(refusal([](auto& p) { p.quantized = QuantizedType::kInt8, p.in_features = 32800; }),
            "gate: its last dimension K = 32800 is too large; allowed: up to 32768");
}

}  // namespace
