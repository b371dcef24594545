// Which problems the sparse GEMMs refuse, and why, on descriptors alone.
#include "amber/cuda/sparse_gemm/refusal.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "amber/info/catalogue.h"
#include "amber/window.h"

namespace {

using namespace amber;
using cuda::Operands;
using cuda::SparseGemmDescriptor;
using cuda::SparseProblem;

// So that a build without CUDA kernels tests the rule too.
constexpr SparseGemmDescriptor kWide{"wide",
                                     90,
                                     Operands::k16bit,
                                     DType::kBFloat16,
                                     {128, 256, 128},
                                     200 << 10,
                                     MetadataLayout::kSm90_16bit,
                                     16,
                                     32,
                                     cuda::kUnlimited,
                                     8,
                                     false,
                                     false};
constexpr SparseGemmDescriptor kNarrow{"narrow",
                                       80,
                                       Operands::kInt8,
                                       DType::kFloat16,
                                       {128, 128, 128},
                                       99 << 10,
                                       MetadataLayout::kSm80_8bit,
                                       128,
                                       128,
                                       32768,
                                       16,
                                       true,
                                       true};

std::vector<SparseGemmDescriptor> all_kernels() {
  std::vector<SparseGemmDescriptor> kernels{kWide, kNarrow};
  for (const auto* kernel : cuda::sparse_gemm_kernels()) kernels.push_back(*kernel);
  return kernels;
}

SparseProblem fitting(const SparseGemmDescriptor& kernel, Pattern pattern = {2, 4}) {
  const int64_t multiple =
      extra_windows(pattern) == 0 ? kernel.in_features_multiple : kernel.copies_in_features_multiple;
  return {kernel.arch, kernel.operands, kernel.dtype, pattern, Rescale::kNone, 5, 3 * kernel.out_features_multiple,
          3 * multiple};
}

void expect_refusal(const SparseGemmDescriptor& kernel, const SparseProblem& problem, const std::string& part) {
  const std::string why = cuda::refusal(kernel, problem);
  EXPECT_NE(why.find(part), std::string::npos) << kernel.name << ": '" << why << "' has no '" << part << "'";
  EXPECT_EQ(why.find('\n'), std::string::npos) << why;
}

TEST(SparseGemmRefusal, EveryKernelRunsItsSmallestShapes) {
  for (const SparseGemmDescriptor& kernel : all_kernels()) {
    for (const SparsePattern& sparse : kSparsePatterns) {
      for (int64_t tokens : {1, 63, 8192}) {
        SparseProblem problem = fitting(kernel, sparse.pattern);
        problem.tokens = tokens;
        EXPECT_EQ(cuda::refusal(kernel, problem), "") << kernel.name << " " << sparse.name;
      }
    }
  }
}

TEST(SparseGemmRefusal, NamesTheArgumentItsValueAndWhatIsAllowed) {
  for (const SparseGemmDescriptor& kernel : all_kernels()) {
    const std::string name = kernel.name, needs = ", which " + name + " needs";
    SparseProblem problem = fitting(kernel);
    problem.arch = 75;
    expect_refusal(kernel, problem, "kernel: '" + name + "' does not run on compute capability 7.5; allowed: ");

    problem = fitting(kernel);
    problem.operands = kernel.operands == Operands::kE4m3 ? Operands::kInt8 : Operands::kE4m3;
    expect_refusal(kernel, problem, "kernel: '" + name + "' does not take " + describe(problem.operands) + " operands");
    problem = fitting(kernel);
    problem.dtype = DType::kFloat32;
    expect_refusal(kernel, problem, "operands and dtype float32; allowed: ");

    for (Pattern pattern : {Pattern{1, 4}, {10, 16}, {1, 1}}) {
      problem = fitting(kernel);
      problem.pattern = pattern;
      expect_refusal(kernel, problem,
                     "pattern: '" + std::to_string(pattern.n) + ":" + std::to_string(pattern.m) +
                         "' does not run on a sparse GEMM; allowed: '2:4', '4:8', '8:16', '10:16w', '12:16w'");
    }

    problem = fitting(kernel);
    problem.rescale = Rescale::kVariance;
    if (kernel.rescales) {
      EXPECT_EQ(cuda::refusal(kernel, problem), "");
    } else {
      expect_refusal(kernel, problem, "rescale: 'variance' does not run on a sparse GEMM");
    }

    for (const SparsePattern& sparse : kSparsePatterns) {
      problem = fitting(kernel, sparse.pattern);
      const int64_t multiple = problem.in_features / 3;
      problem.in_features += multiple / 2;
      expect_refusal(kernel, problem,
                     "x: its last dimension K = " + std::to_string(problem.in_features) + " is not a multiple of " +
                         std::to_string(multiple) + needs);
    }

    problem = fitting(kernel);
    ++problem.out_features;
    expect_refusal(kernel, problem,
                   "weight: its first dimension N = " + std::to_string(problem.out_features) +
                       " is not a multiple of " + std::to_string(kernel.out_features_multiple) + needs);
  }
}

TEST(SparseGemmRefusal, Limits) {
  SparseProblem problem = fitting(kNarrow);
  problem.in_features = 32768;
  EXPECT_EQ(cuda::refusal(kNarrow, problem), "");
  problem.in_features += kNarrow.in_features_multiple;
  expect_refusal(kNarrow, problem, "x: its last dimension K = 32896 is too large; allowed: up to 32768");

  const int64_t beyond_int = int64_t{1} << 31;
  problem = fitting(kWide);
  problem.tokens = beyond_int;
  expect_refusal(kWide, problem, "x: T = 2147483648 tokens are too many; allowed: up to 2147483647");
  problem = fitting(kWide);
  problem.out_features = beyond_int;
  expect_refusal(kWide, problem, "weight: its first dimension N = 2147483648 is too large");
  problem = fitting(kWide, {8, 16});
  problem.in_features = beyond_int / 2;
  EXPECT_EQ(cuda::refusal(kWide, problem), "");  // K' = 1.5 * 2^30 is an int
  for (int64_t k : {beyond_int / 4 * 3, int64_t{1} << 62}) {
    problem.in_features = k;
    expect_refusal(kWide, problem, "x: its last dimension K = " + std::to_string(k) + " is too large");
  }
}

TEST(SparseGemmRefusal, AnEmptyProductHasNoShapeToRefuse) {
  for (const SparseGemmDescriptor& kernel : all_kernels()) {
    SparseProblem problem = fitting(kernel);
    problem.in_features = 4, problem.out_features = 3, problem.tokens = 0;
    EXPECT_EQ(cuda::refusal(kernel, problem), "");
    problem.tokens = 5, problem.out_features = 0;
    EXPECT_EQ(cuda::refusal(kernel, problem), "");
    problem.pattern = {1, 4};
    expect_refusal(kernel, problem, "pattern: '1:4'");
  }
}

TEST(SparseGemmChoice, ByNameOrTheBuildsDefault) {
  const SparseProblem problem{89, Operands::k16bit, DType::kFloat32, {2, 4}, Rescale::kNone, 1, 8, 64};
  for (const char* name : {"no such kernel", cuda::kDefaultSparseGemm}) {
    const auto choice = cuda::choose_sparse_gemm(name, problem);
    EXPECT_EQ(choice.kernel, nullptr);
    EXPECT_EQ(choice.refusal,
              std::string("kernel: '") + name +
                  "' is not in this build for compute capability 8.9, 16-bit operands and dtype float32; it has none");
  }
  for (const auto* kernel : cuda::sparse_gemm_kernels()) {
    const auto choice = cuda::choose_sparse_gemm(kernel->name, fitting(*kernel));
    EXPECT_EQ(choice.kernel, kernel);
    EXPECT_EQ(choice.refusal, "");
    const auto by_default = cuda::choose_sparse_gemm(cuda::kDefaultSparseGemm, fitting(*kernel));
    EXPECT_EQ(by_default.kernel, cuda::default_sparse_gemm(kernel->arch, kernel->operands, kernel->dtype));
    EXPECT_EQ(by_default.refusal, "");
  }
}

TEST(SparseGemmChoice, NamesWhatThereIs) {
  for (const auto* kernel : cuda::sparse_gemm_kernels()) {
    SparseProblem problem = fitting(*kernel);
    const std::string here = cuda::choose_sparse_gemm("no such kernel", problem).refusal;
    EXPECT_NE(here.find("; allowed: "), std::string::npos) << here;
    EXPECT_NE(here.find(kernel->name), std::string::npos) << here;
    problem.arch = 75;
    const std::string elsewhere = cuda::choose_sparse_gemm(cuda::kDefaultSparseGemm, problem).refusal;
    EXPECT_NE(elsewhere.find("for compute capability 7.5, "), std::string::npos) << elsewhere;
    EXPECT_NE(elsewhere.find("; for other GPUs it has "), std::string::npos) << elsewhere;
    EXPECT_NE(elsewhere.find(kernel->name), std::string::npos) << elsewhere;
  }
}

TEST(SparseGemmDescriptors, RunWhereTheInstructionsAreAndTheTileFits) {
  SparseGemmDescriptor kernel = kNarrow;
  const std::vector<int> mma_sp{80, 86, 87, 88, 89, 120, 121}, large_memory{80, 87};
  EXPECT_EQ(kernel.capabilities(), mma_sp);
  kernel.arch = 89;
  EXPECT_EQ(kernel.capabilities(), (std::vector<int>{89, 120, 121}));
  kernel.arch = 80;
  ++kernel.shared_memory;
  EXPECT_EQ(kernel.capabilities(), large_memory);
  kernel.shared_memory = 163 << 10;
  EXPECT_EQ(kernel.capabilities(), large_memory);
  ++kernel.shared_memory;
  EXPECT_TRUE(kernel.capabilities().empty());
  EXPECT_EQ(
      cuda::refusal(kernel, fitting(kernel)).rfind("kernel: 'narrow' does not run on compute capability 8.0; ", 0), 0u);
  EXPECT_EQ(kWide.capabilities(), std::vector<int>{90});
  SparseProblem problem = fitting(kWide);
  problem.arch = 121;
  EXPECT_EQ(cuda::refusal(kWide, problem), "kernel: 'wide' does not run on compute capability 12.1; allowed: 9.0");
  for (int unknown : {70, 75, 81, 91, 122, 130}) {
    EXPECT_FALSE(kNarrow.runs_on(unknown)) << unknown;
    EXPECT_FALSE(kWide.runs_on(unknown)) << unknown;
  }
  // What the tests' builds have: on every GPU that knows the instructions there is a default.
  for (const auto* built : cuda::sparse_gemm_kernels()) {
    EXPECT_TRUE(built->runs_on(built->arch)) << built->name;
    if (built->arch != 80) continue;
    for (int capability : mma_sp) {
      EXPECT_NE(cuda::default_sparse_gemm(capability, built->operands, built->dtype), nullptr) << built->name;
    }
  }
}

TEST(SparseGemmDescriptors, FollowFromTheOperands) {
  for (const auto* kernel : cuda::sparse_gemm_kernels()) {
    const bool quantized = kernel->operands != Operands::k16bit;
    EXPECT_EQ(kernel->rescales, quantized) << kernel->name;
    EXPECT_EQ(kernel->max_in_features, quantized ? 32768 : cuda::kUnlimited) << kernel->name;
    const bool whole_tiles = kernel->arch < 90;  // of mma.sp's K
    EXPECT_EQ(kernel->out_features_multiple, whole_tiles && quantized ? 16 : 8) << kernel->name;
    const int64_t own = whole_tiles ? kernel->tile.k : 0;
    EXPECT_EQ(kernel->in_features_multiple, std::max<int64_t>(quantized ? 32 : 16, own)) << kernel->name;
    EXPECT_EQ(kernel->copies_in_features_multiple, std::max<int64_t>(32, own)) << kernel->name;
    const std::string tile =
        std::to_string(kernel->tile.m) + "x" + std::to_string(kernel->tile.n) + "x" + std::to_string(kernel->tile.k);
    EXPECT_NE(std::string(kernel->name).find(tile), std::string::npos) << kernel->name;
  }
}

TEST(SparseGemmDescriptors, AreListedInTheCatalogueAndInJson) {
  const std::string json = sparse_gemms_json();
  EXPECT_EQ(json.front(), '[');
  EXPECT_EQ(json.back(), ']');
  EXPECT_EQ(static_cast<size_t>(std::count(json.begin(), json.end(), '{')), cuda::sparse_gemm_kernels().size());
  std::set<std::string> names;
  for (const KernelEntry& entry : kernel_catalogue()) names.insert(entry.name);
  for (const auto* kernel : cuda::sparse_gemm_kernels()) {
    EXPECT_EQ(names.count(kernel->name), 1u) << kernel->name;
    EXPECT_NE(json.find("{\"name\": \"" + std::string(kernel->name) + "\", \"arch\": "), std::string::npos);
  }
}

}  // namespace
