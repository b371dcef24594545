// That no combination lacks its test: what is listed here by hand is held against the tests that are registered.
#include <set>

#include "amber/cuda/sparse_gemm/sparse_gemm.h"
#include "cases/compress.h"
#include "support.h"

namespace {

using namespace amber;

const char* const kPatterns[] = {"2of4", "4of8", "8of16", "10of16w", "12of16w"};
const char* const kDTypes[] = {"fp16", "bf16"};

// "Suite.Test/parameter" of every test in this program, filtered out or not.
std::set<std::string> registered_tests() {
  std::set<std::string> names;
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int i = 0; i < all.total_test_suite_count(); ++i) {
    const testing::TestSuite& suite = *all.GetTestSuite(i);
    for (int j = 0; j < suite.total_test_count(); ++j) {
      names.insert(std::string(suite.name()) + "." + suite.GetTestInfo(j)->name());
    }
  }
  return names;
}

// Every wanted test of `test` is there, and no other.
void expect_exactly(const std::set<std::string>& wanted, const std::string& test) {
  std::set<std::string> there;
  for (const std::string& name : registered_tests()) {
    if (name.rfind(test + "/", 0) == 0) there.insert(name.substr(test.size() + 1));
  }
  EXPECT_EQ(there, wanted) << test;
}

TEST(GpuCoverage, EveryPatternIsNamedHere) {
  std::set<std::string> names;
  for (const SparsePattern& sparse : kSparsePatterns) names.insert(gpu_test::name_of(sparse));
  EXPECT_EQ(names, std::set<std::string>(std::begin(kPatterns), std::end(kPatterns)));
}

TEST(GpuCoverage, EveryCompressionIsTested) {
  std::set<std::string> wanted;
  for (const std::string dtype : kDTypes) {
    for (const std::string pattern : kPatterns) {
      for (const std::string arch : {"_sm80_", "_sm90_", "_sm100_"}) {
        if (arch == "_sm100_" && !gpu_test::kWithSm100) continue;
        wanted.insert("prune_" + dtype + arch + "16bit_" + pattern);
        for (const std::string operands : {"int8_", "e4m3_"}) {
          wanted.insert(operands + dtype + arch + "8bit_" + pattern);
        }
      }
    }
  }
  EXPECT_EQ(wanted.size(), gpu_test::kWithSm100 ? 90u : 60u);
  expect_exactly(wanted, "GpuCompress.Shapes");
  expect_exactly(wanted, "GpuSiluMulCompress.Shapes");
}

TEST(GpuCoverage, EveryKernelIsTestedWithEveryPattern) {
  std::set<std::string> wanted, wanted_slow;
  for (const cuda::SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    for (const std::string pattern : kPatterns) wanted.insert(kernel->name + ("_" + pattern));
    wanted_slow.insert(kernel->name + std::string("_2of4"));
  }
  expect_exactly(wanted, "GpuSparseGemm.Shapes");
  expect_exactly(wanted_slow, "GpuSparseGemmSlow.LargeLayerInEveryRasterOrder");
}

// Every operand and dtype has a kernel where the build has the architecture: a list that lost one would go unnoticed.
TEST(GpuCoverage, EveryOperandHasAKernel) {
  std::set<int> archs;
  for (const cuda::SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) archs.insert(kernel->arch);
  for (int arch : archs) {
    for (DType dtype : {DType::kFloat16, DType::kBFloat16}) {
      for (auto operands : {cuda::Operands::k16bit, cuda::Operands::kInt8, cuda::Operands::kE4m3}) {
        // 8.0's tensor cores do not take e4m3; 8.9 has the kernels of 8.0 for the rest.
        const bool has = arch != 80 || operands != cuda::Operands::kE4m3;
        EXPECT_EQ(cuda::default_sparse_gemm(arch, operands, dtype) != nullptr, has)
            << arch << " " << cuda::describe(operands) << " " << describe(dtype);
      }
    }
  }
}

}  // namespace
