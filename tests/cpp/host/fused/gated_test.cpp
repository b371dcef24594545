// Rows of a gated MLP on the CPU, every instruction set: what the separate steps make of the rounded product.
#include "amber/cpu/fused/gated.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "amber/cpu/prune/prune.h"
#include "amber/cpu/quantize/quantize.h"

namespace {

using namespace amber;
using cpu::Isa;

template <typename T>
std::vector<T> awkward(int64_t count, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  std::vector<T> x(count);
  const float specials[] = {std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity(),
                            -0.0f,
                            0.0f,
                            1.0f,
                            -1.0f,
                            1e-30f,
                            60000.0f};
  for (T& value : x) value = from_float<T>(rng() % 4 ? normal(rng) : specials[rng() % 8]);
  return x;
}

template <typename T>
void check(Isa isa, DType dtype, int64_t rows, int64_t cols, Pattern pattern, bool scaled, std::mt19937& rng) {
  SCOPED_TRACE(testing::Message() << cpu::isa_name(isa) << " " << describe(dtype) << " [" << rows << ", " << cols
                                  << "] " << pattern.n << ":" << pattern.m);
  const std::vector<T> silu = awkward<T>(rows * cols, rng), up = awkward<T>(rows * cols, rng);
  std::vector<T> product(rows * cols);
  for (size_t i = 0; i < product.size(); ++i) product[i] = from_float<T>(to_float(silu[i]) * to_float(up[i]));
  std::vector<float> scale(cols);
  for (float& c : scale) c = 0.5f + (rng() % 8) * 0.25f;
  const float* by = scaled ? scale.data() : nullptr;

  for (Rescale rescale : {Rescale::kNone, Rescale::kVariance}) {
    std::vector<T> want(rows * cols), got(rows * cols);
    std::vector<uint8_t> want_mask(rows * cols), got_mask(rows * cols, 7);
    cpu::prune_rows_with(isa, {product.data(), by, want.data(), want_mask.data(), rows, cols, pattern, dtype, rescale},
                         0, rows);
    const PruneArgs then{silu.data(), by, got.data(), got_mask.data(), rows, cols, pattern, dtype, rescale};
    // Two ranges, as two threads would.
    cpu::prune_gated_rows_with(isa, {silu.data(), up.data()}, then, 0, rows / 3);
    cpu::prune_gated_rows_with(isa, {silu.data(), up.data()}, then, rows / 3, rows);
    EXPECT_EQ(got_mask, want_mask);
    for (size_t i = 0; i < got.size(); ++i) {
      const float a = to_float(got[i]), b = to_float(want[i]);
      ASSERT_TRUE((a != a && b != b) || std::memcmp(&a, &b, sizeof a) == 0) << i << ": " << a << ", not " << b;
    }

    std::vector<uint8_t> want_values(rows * cols), got_values(rows * cols, 7);
    std::vector<float> want_scale(rows), got_scale(rows);
    QuantizeArgs quantize{product.data(), by,    by,      want_values.data(),  want_scale.data(), rows, cols,
                          pattern,        dtype, rescale, QuantizedType::kInt8};
    cpu::quantize_rows_with(isa, quantize, 0, rows);
    quantize.x = silu.data(), quantize.values = got_values.data(), quantize.token_scale = got_scale.data();
    cpu::quantize_gated_rows_with(isa, {silu.data(), up.data()}, quantize, 0, rows / 3);
    cpu::quantize_gated_rows_with(isa, {silu.data(), up.data()}, quantize, rows / 3, rows);
    EXPECT_EQ(got_values, want_values);
    EXPECT_EQ(std::memcmp(got_scale.data(), want_scale.data(), rows * sizeof(float)), 0);
  }
}

TEST(Gated, EveryDtypeAndInstructionSet) {
  std::mt19937 rng(5);
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (isa > cpu::best_isa()) continue;
    for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
      with_element(dtype, [&](auto element) {
        using T = decltype(element);
        for (int64_t rows : {1, 3, 65}) {
          check<T>(isa, dtype, rows, 96, {2, 4}, true, rng);
          check<T>(isa, dtype, rows, 5 * 7, {3, 5}, false, rng);
          check<T>(isa, dtype, rows, 9 * 16, {10, 16, true}, true, rng);
        }
        check<T>(isa, dtype, 3, 100000, {8, 16}, false, rng);  // rows larger than a block
      });
    }
  }
}

TEST(Gated, NothingToDo) {
  cpu::prune_gated_rows({nullptr, nullptr},
                        {nullptr, nullptr, nullptr, nullptr, 0, 16, {2, 4}, DType::kFloat32, Rescale::kNone}, 0, 0);
  cpu::prune_gated_rows({nullptr, nullptr},
                        {nullptr, nullptr, nullptr, nullptr, 4, 0, {2, 4}, DType::kFloat32, Rescale::kNone}, 0, 4);
}

}  // namespace
