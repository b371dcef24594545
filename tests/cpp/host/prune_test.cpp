#include "amber/cpu/prune/prune.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "amber/dtype.h"
#include "amber/window.h"

#if defined(AMBER_X86)
#include <xmmintrin.h>
#endif

namespace {

using namespace amber;
using cpu::Isa;

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (isa <= cpu::best_isa()) isas.push_back(isa);
  }
  return isas;
}

// Normal numbers mixed with everything that is awkward.
template <typename T>
std::vector<T> awkward(int64_t count, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  std::vector<T> x(count);
  for (T& value : x) {
    switch (rng() % 16) {
      case 0:
        value = from_float<T>(std::numeric_limits<float>::quiet_NaN());
        break;
      case 1:
        value = from_float<T>(-std::numeric_limits<float>::infinity());
        break;
      case 2:
        value = from_float<T>(-0.0f);
        break;
      case 3:
        value = from_float<T>(0.0f);
        break;
      case 4:
        value = from_float<T>(1e-7f);
        break;
      case 5:
      case 6:
        value = from_float<T>(rng() % 2 ? 1.0f : -1.0f);
        break;
      default:
        value = from_float<T>(normal(rng));
    }
  }
  return x;
}

// By stable sort of the fp32 scores, NaN first. A windowed pattern takes what fits, in that order.
template <typename T>
std::vector<uint8_t> expected_mask(const std::vector<T>& x, const float* scale, int64_t cols, Pattern p) {
  std::vector<uint8_t> mask(x.size(), 0);
  for (size_t base = 0; base < x.size(); base += p.m) {
    std::vector<float> score(p.m);
    for (int i = 0; i < p.m; ++i) {
      score[i] = std::fabs(to_float(x[base + i])) * (scale ? scale[(base + i) % cols] : 1.0f);
    }
    std::vector<int> order(p.m);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      if (std::isnan(score[a]) || std::isnan(score[b])) return std::isnan(score[a]) && !std::isnan(score[b]);
      return score[a] > score[b];
    });
    uint32_t kept = 0;
    for (int i : order) {
      const uint32_t bit = 1u << i;
      const bool take = !p.windowed ? __builtin_popcount(kept) < p.n
                        : p.n == 10 ? fits<1>(kept | bit)
                                    : fits<2>(kept | bit);
      if (take) kept |= bit, mask[base + i] = 1;
    }
  }
  return mask;
}

template <typename T>
constexpr DType dtype_of() {
  return std::is_same_v<T, float> ? DType::kFloat32 : std::is_same_v<T, Float16> ? DType::kFloat16 : DType::kBFloat16;
}

template <typename T>
class Prune : public testing::Test {};
using Types = testing::Types<float, Float16, BFloat16>;
TYPED_TEST_SUITE(Prune, Types);

TYPED_TEST(Prune, EqualsASortOnEveryInstructionSet) {
  using T = TypeParam;
  std::mt19937 rng(7);
  const std::vector<Pattern> patterns{{1, 1},   {1, 2},  {2, 2},   {1, 4},  {2, 4},         {3, 4},
                                      {4, 8},   {1, 8},  {3, 5},   {8, 16}, {5, 16},        {10, 16},
                                      {16, 32}, {1, 32}, {31, 32}, {7, 30}, {10, 16, true}, {12, 16, true}};
  for (Pattern p : patterns) {
    for (int groups : {1, 3, 4, 17, 35}) {
      const int64_t rows = 5, cols = static_cast<int64_t>(groups) * p.m;
      const std::vector<T> x = awkward<T>(rows * cols, rng);
      std::vector<float> scale(cols);
      for (float& c : scale) c = 0.25f * (1 + rng() % 8);
      for (const float* c : {static_cast<const float*>(nullptr), static_cast<const float*>(scale.data())}) {
        const std::vector<uint8_t> expected = expected_mask(x, c, cols, p);
        for (Isa isa : available_isas()) {
          SCOPED_TRACE(testing::Message() << p.n << ":" << p.m << " cols " << cols << " " << cpu::isa_name(isa));
          std::vector<uint8_t> mask(x.size(), 0xee);
          std::vector<T> pruned(x.size());
          std::memset(pruned.data(), 0xee, pruned.size() * sizeof(T));
          const PruneArgs args{x.data(), c, pruned.data(), mask.data(), rows, cols, p, dtype_of<T>(), Rescale::kNone};
          ASSERT_EQ(cpu::validate(args), Status::kOk);
          cpu::prune_rows_with(isa, args, 0, rows);
          ASSERT_EQ(mask, expected);
          for (size_t i = 0; i < x.size(); ++i) {
            const T want = expected[i] ? x[i] : T{};  // T{} is +0
            ASSERT_EQ(std::memcmp(&pruned[i], &want, sizeof(T)), 0) << i;
          }
        }
      }
    }
  }
}

TYPED_TEST(Prune, VarianceRescaleMatchesItsFormula) {
  using T = TypeParam;
  std::mt19937 rng(8);
  std::normal_distribution<float> normal(0.3f, 2.0f);
  const int64_t rows = 4, cols = 16 * 9;
  const Pattern p{2, 4};
  std::vector<T> x(rows * cols);
  for (T& value : x) value = from_float<T>(normal(rng));
  const std::vector<uint8_t> keep = expected_mask(x, nullptr, cols, p);
  for (Isa isa : available_isas()) {
    std::vector<T> pruned(x.size());
    const PruneArgs args{x.data(), nullptr, pruned.data(), nullptr, rows, cols, p, dtype_of<T>(), Rescale::kVariance};
    cpu::prune_rows_with(isa, args, 0, rows);
    for (int64_t t = 0; t < rows; ++t) {
      long double sum[2] = {}, squares[2] = {};
      for (int64_t k = 0; k < cols; ++k) {
        const long double v = to_float(x[t * cols + k]);
        const long double w = keep[t * cols + k] ? v : 0;
        sum[0] += v, squares[0] += v * v, sum[1] += w, squares[1] += w * w;
      }
      const long double var = squares[0] / cols - sum[0] * sum[0] / cols / cols;
      const long double var_pruned = squares[1] / cols - sum[1] * sum[1] / cols / cols;
      const float factor = static_cast<float>(std::sqrt(var / var_pruned));
      for (int64_t k = 0; k < cols; ++k) {
        const size_t i = t * cols + k;
        const float want = keep[i] ? to_float(x[i]) * factor : 0.0f;
        const float ulp = sizeof(T) == 4 ? 0x1p-22f : std::is_same_v<T, Float16> ? 0x1p-10f : 0x1p-7f;
        ASSERT_NEAR(to_float(pruned[i]), want, std::fabs(want) * ulp) << cpu::isa_name(isa) << " " << i;
      }
    }
  }
}

TEST(PruneRescale, DegenerateRowsKeepFactorOne) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> x{0,   0, 0, 0, 0, 0, 0, 0,   // all zero
                             1,   1, 1, 1, 1, 1, 1, 1,   // constant: variance 0
                             inf, 1, 2, 3, 4, 5, 6, 7};  // not finite
  const std::vector<float> want{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, inf, 0, 0, 3, 0, 0, 6, 7};
  for (Isa isa : available_isas()) {
    std::vector<float> pruned(x.size());
    cpu::prune_rows_with(
        isa, {x.data(), nullptr, pruned.data(), nullptr, 3, 8, {2, 4}, DType::kFloat32, Rescale::kVariance}, 0, 3);
    EXPECT_EQ(pruned, want) << cpu::isa_name(isa);
  }
}

TEST(PruneRows, WritesOnlyTheRowsAsked) {
  const std::vector<float> x(4 * 8, 1.0f);
  std::vector<uint8_t> mask(x.size(), 9);
  cpu::prune_rows({x.data(), nullptr, nullptr, mask.data(), 4, 8, {2, 4}, DType::kFloat32, Rescale::kNone}, 1, 3);
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(mask[i], 9);
    EXPECT_NE(mask[8 + i], 9);
    EXPECT_NE(mask[16 + i], 9);
    EXPECT_EQ(mask[24 + i], 9);
  }
}

#if defined(AMBER_X86)
TEST(PruneRows, SubnormalNumbersCountWhereTheThreadFlushesThem) {
  std::vector<float> x(64);  // multiples of 2^-149, the largest last in each group
  for (uint32_t k = 0; k < 64; ++k) x[k] = bits_float(k + 1);
  const std::vector<float> scale(64, 0.75f);
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);
  for (Isa isa : available_isas()) {
    std::vector<uint8_t> mask(64);
    cpu::prune_rows_with(
        isa, {x.data(), scale.data(), nullptr, mask.data(), 1, 64, {8, 16}, DType::kFloat32, Rescale::kNone}, 0, 1);
    for (int k = 0; k < 64; ++k) EXPECT_EQ(mask[k], k % 16 >= 8) << cpu::isa_name(isa) << ' ' << k;
    EXPECT_EQ(cpu::first_invalid_scale(x.data(), 64), -1);
    EXPECT_EQ(_mm_getcsr() & 0x8040u, 0x8040u);
  }
  _mm_setcsr(before);
}
#endif

TEST(PruneValidate, NamesWhatIsWrong) {
  float x[8] = {};
  uint8_t mask[8];
  auto status = [&](Pattern p, int64_t rows, int64_t cols, const void* in, uint8_t* out) {
    return cpu::validate({in, nullptr, nullptr, out, rows, cols, p, DType::kFloat32, Rescale::kNone});
  };
  EXPECT_EQ(status({2, 4}, 1, 8, x, mask), Status::kOk);
  EXPECT_EQ(status({5, 4}, 1, 8, x, mask), Status::kInvalidPattern);
  EXPECT_EQ(status({8, 16, true}, 1, 16, x, mask), Status::kInvalidPattern);
  EXPECT_EQ(status({2, 4}, 1, 6, x, mask), Status::kColsNotMultipleOfM);
  EXPECT_EQ(status({2, 4}, -1, 8, x, mask), Status::kNegativeSize);
  EXPECT_EQ(status({2, 4}, 1, 8, nullptr, mask), Status::kNullPointer);
  EXPECT_EQ(status({2, 4}, 1, 8, x, nullptr), Status::kNullPointer);
  EXPECT_EQ(status({2, 4}, 0, 8, nullptr, nullptr), Status::kOk);
}

TEST(Scale, FirstInvalidElement) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> good{1, 1e-38f, 3e38f};
  EXPECT_EQ(cpu::first_invalid_scale(good.data(), 3), -1);
  for (float bad : {0.0f, -0.0f, -1.0f, nan, inf}) {
    const std::vector<float> scale{1, bad, 1};
    EXPECT_EQ(cpu::first_invalid_scale(scale.data(), 3), 1) << bad;
  }
}

}  // namespace
