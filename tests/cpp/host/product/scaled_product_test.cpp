// The int8 product with scales in its epilogue, against a plain int64 loop.
#include "amber/cpu/product/scaled_product.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "amber/cpu/isa.h"

namespace {

using namespace amber;

// Bytes that end where memory ends: AddressSanitizer does not see vector instructions with masks.
class BytesBeforeAWall {
 public:
  explicit BytesBeforeAWall(size_t size)
      : page_(sysconf(_SC_PAGESIZE)), mapped_((size + page_ - 1) / page_ * page_ + page_) {
    base_ = static_cast<uint8_t*>(mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_ + mapped_ - page_, page_, PROT_NONE);
    data_ = reinterpret_cast<int8_t*>(base_ + mapped_ - page_ - size);
  }
  ~BytesBeforeAWall() { munmap(base_, mapped_); }
  BytesBeforeAWall(const BytesBeforeAWall&) = delete;
  BytesBeforeAWall& operator=(const BytesBeforeAWall&) = delete;
  int8_t& operator[](size_t i) { return data_[i]; }
  int8_t* data() { return data_; }

 private:
  const size_t page_, mapped_;
  uint8_t* base_;
  int8_t* data_;
};

using Fill = std::function<int8_t(std::mt19937&)>;

int8_t any_byte(std::mt19937& rng) { return static_cast<int8_t>(rng()); }
Fill always(int value) {
  return [value](std::mt19937&) { return static_cast<int8_t>(value); };
}

struct Case {
  int64_t tokens, out_features, in_features;
  int64_t gap = 0;  // bytes between rows of W
  Fill value = any_byte, weight = any_byte;
  int64_t tasks_at_once = 1 << 30;
};

template <typename T>
void expect_exact(const Case& c) {
  SCOPED_TRACE(testing::Message() << "T = " << c.tokens << ", N = " << c.out_features << ", K = " << c.in_features);
  std::mt19937 rng(static_cast<unsigned>(c.tokens * 1000 + c.out_features * 10 + c.in_features));
  std::uniform_real_distribution<float> positive(0.001f, 0.1f), any(-1.0f, 1.0f);
  const int64_t stride = c.in_features + c.gap;
  BytesBeforeAWall values(c.tokens * c.in_features);
  BytesBeforeAWall weight((c.out_features - 1) * stride + c.in_features);
  for (int64_t i = 0; i < c.tokens * c.in_features; ++i) values[i] = c.value(rng);
  for (int64_t i = 0; i < (c.out_features - 1) * stride + c.in_features; ++i) weight[i] = c.weight(rng);
  std::vector<float> token_scale(c.tokens), weight_scale(c.out_features);
  std::vector<T> bias(c.out_features), y(c.tokens * c.out_features);
  for (float& s : token_scale) s = positive(rng);
  for (float& s : weight_scale) s = positive(rng);
  for (T& b : bias) b = from_float<T>(any(rng));
  const bool biased = c.out_features % 2 == 1;

  constexpr DType dtype = std::is_same_v<T, float>     ? DType::kFloat32
                          : std::is_same_v<T, Float16> ? DType::kFloat16
                                                       : DType::kBFloat16;
  const cpu::ScaledProductArgs args{
      values.data(), token_scale.data(), weight.data(),  weight_scale.data(), biased ? bias.data() : nullptr,
      y.data(),      c.tokens,           c.out_features, c.in_features,       stride,
      dtype};
  ASSERT_EQ(cpu::validate(args), Status::kOk);
  const int64_t tasks = cpu::scaled_product_tasks(args);
  for (int64_t begin = 0; begin < tasks; begin += c.tasks_at_once) {
    cpu::scaled_product(args, begin, std::min(tasks, begin + c.tasks_at_once));
  }

  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t n = 0; n < c.out_features; ++n) {
      int64_t sum = 0;
      for (int64_t k = 0; k < c.in_features; ++k) {
        sum += int64_t{values[t * c.in_features + k]} * weight[n * stride + k];
      }
      float want = static_cast<float>(sum) * token_scale[t] * weight_scale[n];
      if (biased) want = want + to_float(bias[n]);
      const T rounded = from_float<T>(want);
      ASSERT_EQ(std::memcmp(&rounded, &y[t * c.out_features + n], sizeof(T)), 0)
          << "token " << t << ", feature " << n << ": " << to_float(y[t * c.out_features + n]) << ", not " << want;
    }
  }
}

class ScaledProduct : public testing::Test {
 protected:
  void SetUp() override {
    if (!cpu::has_vnni()) GTEST_SKIP() << "this CPU has no AVX-512 VNNI";
  }
};

TEST_F(ScaledProduct, IsExactForEveryRemainder) {
  for (const int64_t tokens : {1, 2, 3, 4, 5, 12, 13, 63, 64, 65, 300}) {
    for (const int64_t features : {1, 15, 17, 64, 100}) {
      for (const int64_t in_features : {1, 2, 3, 4, 32, 63, 64, 65, 100, 190}) {
        expect_exact<BFloat16>({tokens, features, in_features});
      }
    }
  }
}

TEST_F(ScaledProduct, WritesEveryDtype) {
  for (const int64_t tokens : {3, 20}) {
    expect_exact<float>({tokens, 77, 96});
    expect_exact<Float16>({tokens, 77, 96});
    expect_exact<float>({tokens, 78, 96});
    expect_exact<Float16>({tokens, 78, 96});
  }
}

TEST_F(ScaledProduct, TakesRowsThatLieApart) {
  for (const int64_t tokens : {5, 70}) expect_exact<float>({tokens, 70, 96, 24});
}

TEST_F(ScaledProduct, IsExactForTheLargestSums) {
  // 131071 * 128 * 128 is the largest such product that fits int32.
  for (const int64_t tokens : {1, 13}) {
    for (const int64_t in_features : {4096, 131071}) {
      for (const int value : {-128, 127}) {
        for (const int weight : {-128, 127}) {
          expect_exact<float>({tokens, 9, in_features, 0, always(value), always(weight)});
        }
      }
    }
  }
}

TEST_F(ScaledProduct, MayBeSplitAnywhere) {
  for (const int64_t at_once : {1, 2, 3, 5}) {
    expect_exact<float>({500, 200, 36, 0, any_byte, any_byte, at_once});
    expect_exact<float>({7, 200, 36, 0, any_byte, any_byte, at_once});
  }
}

TEST_F(ScaledProduct, FillsATokenOfNaNScaleWithNaN) {
  for (const int64_t tokens : {2, 13}) {
    const std::vector<int8_t> values(tokens * 8), weight(3 * 8, 1);
    std::vector<float> token_scale(tokens, 1.0f), weight_scale(3, 1.0f), y(tokens * 3);
    token_scale[1] = std::numeric_limits<float>::quiet_NaN();
    const cpu::ScaledProductArgs args{
        values.data(),  token_scale.data(), weight.data(), weight_scale.data(), nullptr, y.data(), tokens, 3, 8, 8,
        DType::kFloat32};
    cpu::scaled_product(args, 0, cpu::scaled_product_tasks(args));
    for (int64_t i = 0; i < tokens * 3; ++i) EXPECT_EQ(std::isnan(y[i]), i / 3 == 1);
  }
}

TEST_F(ScaledProduct, RefusesWhatItCannotRead) {
  float scale = 1.0f;
  int8_t byte = 1;
  cpu::ScaledProductArgs args{&byte, &scale, &byte, &scale, nullptr, &scale, 1, 1, 1, 1, DType::kFloat32};
  EXPECT_EQ(cpu::validate(args), Status::kOk);
  args.values = nullptr;
  EXPECT_EQ(cpu::validate(args), Status::kNullPointer);
  args.in_features = 0;  // then there is nothing to read
  EXPECT_EQ(cpu::validate(args), Status::kOk);
  args.token_scale = nullptr;
  EXPECT_EQ(cpu::validate(args), Status::kNullPointer);
  args.tokens = 0;
  EXPECT_EQ(cpu::validate(args), Status::kOk);
  args.tokens = -1;
  EXPECT_EQ(cpu::validate(args), Status::kNegativeSize);
}

}  // namespace
