// What the plan of a sparse linear layer says, for shapes worked out by hand, and how running one fails. Only
// the last step of a failure needs a GPU.
#include <cstring>

#include "amber/cuda/linear/sparse_linear.h"
#include "support.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;
using cuda::Operands;
using cuda::SparseGemmKernel;
using cuda::SparseLinearBuffers;
using cuda::SparseLinearPlan;
using cuda::SparseProblem;

constexpr Pattern k2_4{2, 4}, k8_16{8, 16}, k10_16w{10, 16, true}, k12_16w{12, 16, true};

SparseProblem problem_for(const SparseGemmKernel& kernel, int64_t tokens = 65, int64_t k = 384,
                          Pattern pattern = k2_4) {
  return {kernel.arch, kernel.operands, kernel.dtype, pattern, Rescale::kNone, tokens, 272, k};
}

SparseLinearPlan plan_for(const SparseGemmKernel& kernel, const SparseProblem& problem) {
  return cuda::plan_sparse_linear(kernel.name, problem, 132);
}

struct Sizes {
  int arch;
  bool quantized;
  Pattern pattern;
  int64_t tokens, k, wide_cols, rows, values, metadata, token_scales;
};

TEST(SparseLinearPlan, SizesOfShapesWorkedOutByHand) {
  // Values are K' / 2 a row, of 2 bytes or 1. E is K' / 8 bytes a row, its rows rounded up to 64 (SM90) or 32
  // (SM80, and then so are the values' rows), its columns to 128 (SM90), 32 or 64 (SM80, 16 and 8 bits).
  const Sizes hand[] = {
      {90, false, k2_4, 65, 288, 288, 65, 65 * 144 * 2, 128 * 48, 0},
      {90, false, k2_4, 64, 16, 16, 64, 64 * 8 * 2, 64 * 16, 0},
      {90, false, k10_16w, 65, 288, 640, 65, 65 * 320 * 2, 128 * 80, 0},
      {90, false, k12_16w, 1, 544, 1152, 1, 576 * 2, 64 * 144, 0},
      {90, true, k2_4, 1, 288, 288, 1, 144, 64 * 48, 4},
      {90, true, k8_16, 130, 256, 384, 130, 130 * 192, 192 * 48, 130 * 4},
      {80, false, k2_4, 65, 320, 320, 96, 96 * 160 * 2, 96 * 40, 0},
      {80, false, k8_16, 32, 320, 768, 32, 32 * 384 * 2, 32 * 96, 0},
      {80, true, k2_4, 1, 384, 384, 32, 32 * 192, 32 * 48, 32 * 4},
      {80, true, k10_16w, 33, 512, 640, 64, 64 * 320, 64 * 80, 64 * 4},
  };
  for (const SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    for (const Sizes& want : hand) {
      if (want.arch != kernel->arch || want.quantized != (kernel->operands != Operands::k16bit)) continue;
      SCOPED_TRACE(testing::Message() << kernel->name << " T " << want.tokens << " K " << want.k);
      const SparseLinearPlan plan = plan_for(*kernel, problem_for(*kernel, want.tokens, want.k, want.pattern));
      EXPECT_EQ(plan.refusal, "");
      EXPECT_EQ(plan.kernel, kernel);
      EXPECT_FALSE(plan.empty);
      EXPECT_EQ(plan.wide_cols, want.wide_cols);
      EXPECT_EQ(plan.rows, want.rows);
      EXPECT_EQ(plan.values_bytes, want.values);
      EXPECT_EQ(plan.metadata_bytes, want.metadata);
      EXPECT_EQ(plan.token_scale_bytes, want.token_scales);
      EXPECT_GE(plan.workspace_bytes, 0);
    }
  }
}

TEST(SparseLinearPlan, TheBuildsDefaultOrARefusal) {
  for (const SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    SCOPED_TRACE(kernel->name);
    const std::string name = kernel->name;
    SparseProblem problem = problem_for(*kernel);
    EXPECT_EQ(cuda::plan_sparse_linear(cuda::kDefaultSparseGemm, problem, 132).kernel,
              cuda::default_sparse_gemm(kernel->arch, kernel->operands, kernel->dtype));
    EXPECT_EQ(
        cuda::plan_sparse_linear("none such", problem, 132).refusal.rfind("kernel: 'none such' is not in this", 0), 0u);
    problem.in_features = 392;
    EXPECT_EQ(plan_for(*kernel, problem).refusal, "x: its last dimension K = 392 is not a multiple of " +
                                                      std::to_string(kernel->in_features_multiple) + ", which " + name +
                                                      " needs");
    problem = problem_for(*kernel);
    problem.out_features = 276;
    EXPECT_EQ(plan_for(*kernel, problem).refusal, "weight: its first dimension N = 276 is not a multiple of " +
                                                      std::to_string(kernel->out_features_multiple) + ", which " +
                                                      name + " needs");
    problem = problem_for(*kernel);
    problem.arch = 75;
    EXPECT_EQ(plan_for(*kernel, problem)
                  .refusal.rfind("kernel: '" + name + "' does not run on compute capability 7.5; allowed: ", 0),
              0u);
    problem = problem_for(*kernel);
    problem.pattern = {1, 4};
    EXPECT_NE(plan_for(*kernel, problem).refusal, "");
  }
}

TEST(SparseLinearPlan, AWalkBehindTheNameReachesTheGemm) {
  for (const SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    const std::string name = kernel->name;
    auto plan = [&](const std::string& walk) {
      return cuda::plan_sparse_linear(name + walk, problem_for(*kernel), 132);
    };
    const auto plain = cuda::sparse_gemm_args(plan(""), {});
    EXPECT_EQ(plain.raster_order, cuda::RasterOrder::kHeuristic);
    EXPECT_EQ(plain.max_swizzle, 1);
    if (kernel->arch < 90) {
      EXPECT_EQ(plan("@M1").refusal, "kernel: '" + name + "@M1' is not allowed; behind '@' " + name + " takes nothing");
      continue;
    }
    for (const char* wrong : {"@", "@M", "@K1", "@M3", "@M16", "@8M"}) {
      EXPECT_EQ(plan(wrong).refusal,
                "kernel: '" + name + wrong + "' is not allowed; behind '@' " + name + " takes M or N and 1, 2, 4 or 8");
    }
    const auto walked = cuda::sparse_gemm_args(plan("@N8"), {});
    EXPECT_EQ(walked.raster_order, cuda::RasterOrder::kAlongN);
    EXPECT_EQ(walked.max_swizzle, 8);
    EXPECT_EQ(cuda::sparse_gemm_args(plan("@M1"), {}).raster_order, cuda::RasterOrder::kAlongM);
  }
}

TEST(SparseLinearPlan, EmptyProblemsNeedNoMemoryAndLaunchNothing) {
  for (const SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    for (const char* empty : {"T", "N", "K"}) {
      SCOPED_TRACE(testing::Message() << kernel->name << " " << empty << " = 0");
      SparseProblem problem = problem_for(*kernel, 5, 24, k8_16);  // N and K that no kernel takes
      problem.out_features = 3;
      (*empty == 'T' ? problem.tokens : *empty == 'N' ? problem.out_features : problem.in_features) = 0;
      const SparseLinearPlan plan = plan_for(*kernel, problem);
      if (*empty == 'K' && kernel->operands != Operands::k16bit) {
        EXPECT_EQ(plan.refusal, "x: its last dimension K is 0; at least 1 channel is needed");
        continue;
      }
      EXPECT_EQ(plan.refusal, "");
      EXPECT_TRUE(plan.empty);
      EXPECT_EQ(plan.wide_cols, *empty == 'K' ? 0 : 384);
      EXPECT_EQ(plan.rows, problem.tokens);
      EXPECT_EQ(plan.values_bytes + plan.metadata_bytes + plan.token_scale_bytes + plan.workspace_bytes, 0);
      EXPECT_EQ(cuda::run_sparse_linear(plan, {}, nullptr), "");
      problem.arch = 75;  // what is not a shape is refused all the same
      EXPECT_NE(plan_for(*kernel, problem).refusal, "");
    }
  }
}

int runs_of_failing_gemm = 0;
const void* workspace_of_failing_gemm = nullptr;

// A plan for a 16-bit kernel whose product fails.
SparseLinearPlan failing_plan(const SparseGemmKernel& kernel, SparseGemmKernel& failing) {
  SparseLinearPlan plan = plan_for(kernel, problem_for(kernel));
  failing = kernel;
  failing.run = [](const cuda::SparseGemmArgs&, void* workspace, CUstream_st*) {
    ++runs_of_failing_gemm;
    workspace_of_failing_gemm = workspace;
    return cuda::GemmStatus::kLaunchFailed;
  };
  plan.kernel = &failing;
  return plan;
}

TEST(SparseLinearRun, NamesAPointerThatIsNotAligned) {
  for (const SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    const SparseLinearPlan plan = plan_for(*kernel, problem_for(*kernel));
    auto expect = [&](const char* name, const SparseLinearBuffers& buffers) {
      EXPECT_EQ(cuda::run_sparse_linear(plan, buffers, nullptr),
                std::string(name) + ": it must be contiguous and 16-byte aligned");
    };
    alignas(16) static float memory[8];
    auto* bytes = reinterpret_cast<uint8_t*>(memory) + 8;
    float* floats = memory + 1;
    SparseLinearBuffers b{};
    expect("x", (b = {}, b.x = bytes, b));
    expect("weight", (b = {}, b.weight = bytes, b));
    expect("weight_scale", (b = {}, b.weight_scale = floats, b));
    expect("bias", (b = {}, b.bias = bytes, b));
    expect("smooth", (b = {}, b.smooth = floats, b));
    expect("scale", (b = {}, b.scale = floats, b));
    expect("values", (b = {}, b.values = bytes, b));
    expect("metadata", (b = {}, b.metadata = bytes, b));
    expect("token_scale", (b = {}, b.token_scale = floats, b));
    expect("workspace", (b = {}, b.workspace = bytes, b));
    expect("output", (b = {}, b.output = bytes, b));
  }
}

TEST(SparseLinearRun, AFailureNamesItsStepAndEndsThere) {
  for (const SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    SparseGemmKernel failing;
    SparseLinearPlan plan = failing_plan(*kernel, failing);
    plan.rows = 64;  // fewer than T
    runs_of_failing_gemm = 0;
    const bool quantized = kernel->operands != Operands::k16bit;
    EXPECT_EQ(cuda::run_sparse_linear(plan, {}, nullptr),
              std::string(quantized ? "quantize_compress" : "prune_compress") + ": CUDA error: invalid argument");
    EXPECT_EQ(runs_of_failing_gemm, 0);
  }
}

TEST(GpuSparseLinearRun, AFailedProductNamesTheKernelAndItsShape) {
  AMBER_NEEDS_GPU();
  const auto* kernel = cuda::default_sparse_gemm(device_arch(), Operands::k16bit, DType::kBFloat16);
  if (!kernel) GTEST_SKIP() << "this build has no sparse GEMM for compute capability " << device_arch();
  SparseGemmKernel failing;
  const SparseLinearPlan plan = failing_plan(*kernel, failing);
  const DeviceArray<BFloat16> x(random_normal<BFloat16>(65 * 384, 1));
  const DeviceArray<uint8_t> values(plan.values_bytes), metadata(plan.metadata_bytes), workspace(16);
  SparseLinearBuffers buffers{};
  buffers.x = x.get(), buffers.values = values.get(), buffers.metadata = metadata.get();
  buffers.workspace = workspace.get();
  runs_of_failing_gemm = 0;
  EXPECT_EQ(
      cuda::run_sparse_linear(plan, buffers, nullptr),
      std::string("kernel: '") + kernel->name + "' failed for T = 65, N = 272, K = 384: the launch failed (no error)");
  EXPECT_EQ(runs_of_failing_gemm, 1);
  EXPECT_EQ(workspace_of_failing_gemm, workspace.get());
  check(cudaDeviceSynchronize());
}

}  // namespace
