// Masks and pruned copies on a GPU, for every dtype and N:M of every kind: bit for bit against the CPU kernels.
#include "amber/cuda/masked/prune.h"

#include <cmath>
#include <cstring>

#include "amber/cpu/prune/prune.h"
#include "support.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

struct PruneCase {
  DType dtype;
  Pattern pattern;

  std::string name() const {
    return name_of(dtype) + "_" + std::to_string(pattern.n) + "of" + std::to_string(pattern.m) +
           (pattern.windowed ? "w" : "");
  }
};

std::vector<PruneCase> prune_cases() {
  std::vector<PruneCase> cases;
  for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    for (Pattern pattern :
         {Pattern{2, 4}, {4, 8}, {8, 16}, {1, 4}, {10, 16}, {3, 5}, {16, 32}, {1, 1}, {10, 16, true}, {12, 16, true}}) {
      cases.push_back({dtype, pattern});
    }
  }
  return cases;
}

class GpuPrune : public testing::TestWithParam<PruneCase> {
 protected:
  void SetUp() override { AMBER_NEEDS_GPU(); }
};

// On a slice `offset` bytes into its allocation; the outputs that are not wanted are null.
template <typename T>
void check_prune(Pattern pattern, int64_t rows, int64_t cols, Rescale rescale, size_t offset, bool scaled,
                 bool with_copy, bool with_mask) {
  SCOPED_TRACE(testing::Message() << "[" << rows << ", " << cols << "] rescale " << static_cast<int>(rescale)
                                  << " offset " << offset << " scaled " << scaled);
  const bool rescaled = rescale == Rescale::kVariance;
  const auto x = rescaled ? random_normal<T>(rows * cols, 5) : random_awkward<T>(rows * cols, 5);
  const std::vector<float> scale = random_factors(cols, 6);
  std::vector<T> want(x.size());
  std::vector<uint8_t> want_mask(x.size());
  cpu::prune_rows({x.data(), scaled ? scale.data() : nullptr, want.data(), want_mask.data(), rows, cols, pattern,
                   dtype_of<T>(), rescale},
                  0, rows);

  const DeviceArray<T> device_x(x, offset), pruned(x.size(), offset);
  const DeviceArray<float> device_scale(scale, offset);
  const DeviceArray<uint8_t> mask(x.size(), offset);
  check(cuda::prune({device_x.get(), scaled ? device_scale.get() : nullptr, with_copy ? pruned.get() : nullptr,
                     with_mask ? mask.get() : nullptr, rows, cols, pattern, dtype_of<T>(), rescale},
                    nullptr));
  if (with_mask) {
    EXPECT_EQ(mask.download(), want_mask);
  }
  if (!with_copy) return;
  const std::vector<T> got = pruned.download();
  if (!rescaled) {
    EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(T)), 0);
    return;
  }
  // The variances are summed in another order: at most the last bit of a product differs.
  const float ulp = sizeof(T) == 4 ? 0x1p-22f : std::is_same_v<T, Float16> ? 0x1p-10f : 0x1p-7f;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(to_float(got[i]), to_float(want[i]), std::fabs(to_float(want[i])) * ulp) << i;
  }
}

TEST_P(GpuPrune, MaskAndCopy) {
  const Pattern pattern = GetParam().pattern;
  with_element(GetParam().dtype, [&](auto element) {
    using T = decltype(element);
    int i = 0;
    for (int64_t rows : {1, 65}) {
      for (int64_t groups : {1, 2, 37}) {
        for (Rescale rescale : {Rescale::kNone, Rescale::kVariance}) {
          check_prune<T>(pattern, rows, pattern.m * groups, rescale, i % 3 * 16, i % 2 == 0, true, true);
          ++i;
        }
      }
    }
    check_prune<T>(pattern, 2, pattern.m * 256, Rescale::kVariance, 0, true, true, true);
    check_prune<T>(pattern, 3, pattern.m * 16, Rescale::kNone, 16, true, true, false);
    check_prune<T>(pattern, 3, pattern.m * 16, Rescale::kNone, 16, true, false, true);
  });
}

INSTANTIATE_TEST_SUITE_P(, GpuPrune, testing::ValuesIn(prune_cases()), ByName());

// Pointers that are aligned to an element alone.
template <typename T>
void check_misaligned(Pattern pattern) {
  const int64_t rows = 3, cols = pattern.m * 16;
  const auto x = random_awkward<T>(rows * cols + 1, 4);
  std::vector<T> want(rows * cols);
  std::vector<uint8_t> want_mask(rows * cols);
  cpu::prune_rows(
      {x.data() + 1, nullptr, want.data(), want_mask.data(), rows, cols, pattern, dtype_of<T>(), Rescale::kNone}, 0,
      rows);
  const DeviceArray<T> device_x(x), pruned(x.size());
  const DeviceArray<uint8_t> mask(x.size());
  check(cuda::prune({device_x.get() + 1, nullptr, pruned.get() + 1, mask.get() + 1, rows, cols, pattern, dtype_of<T>(),
                     Rescale::kNone},
                    nullptr));
  EXPECT_EQ(std::memcmp(pruned.download().data() + 1, want.data(), want.size() * sizeof(T)), 0);
  const std::vector<uint8_t> got = mask.download();
  EXPECT_EQ(std::vector<uint8_t>(got.begin() + 1, got.end()), want_mask);
}

TEST(GpuPruneMisaligned, IsTheCpusBitForBitInEveryCase) {
  AMBER_NEEDS_GPU();
  for (const PruneCase& which : prune_cases()) {
    SCOPED_TRACE(which.name());
    with_element(which.dtype, [&](auto element) { check_misaligned<decltype(element)>(which.pattern); });
  }
}

TEST(GpuPruneEmpty, LaunchesNothing) {
  AMBER_NEEDS_GPU();
  EXPECT_EQ(cuda::prune({nullptr, nullptr, nullptr, nullptr, 0, 64, {2, 4}, DType::kFloat16, Rescale::kNone}, nullptr),
            cudaSuccess);
}

}  // namespace
