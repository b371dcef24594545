// silu as the CUDA kernels compute it, on the host: against fp64, for every 16-bit number.
#include "amber/cuda/compress/sources/silu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "amber/dtype.h"

namespace {

using namespace amber;

double exact(double x) { return x / (1.0 + std::exp(-x)); }

TEST(Silu, Fp32IsNearTheExactValue) {
  double worst = 0.0;
  for (uint32_t bits = 0; bits < 0x42b00000u; bits += 997) {  // up to 88, both signs
    for (uint32_t sign : {0u, 0x80000000u}) {
      const float x = bits_float(bits | sign);
      const double want = exact(x);
      if (std::fabs(want) < 0x1p-120) continue;  // rounding among subnormal numbers is not relative
      worst = std::fmax(worst, std::fabs(cuda::silu(x) - want) / std::fabs(want));
    }
  }
  EXPECT_LT(worst, 3e-7);
}

template <typename T>
void check_every_number() {
  for (uint32_t i = 0; i < 0x10000u; ++i) {
    const T x{static_cast<uint16_t>(i)};
    const float value = to_float(x);
    if (!std::isfinite(value)) continue;
    const T got = from_float<T>(cuda::silu(value));
    const double want = value < -88.72283f ? -0.0 : exact(value);  // as torch's: there e^-x is Inf in fp32
    const T nearest = from_float<T>(static_cast<float>(want));
    EXPECT_EQ(got.bits, nearest.bits) << value << ": " << to_float(got) << ", not " << want;
  }
}

TEST(Silu, EveryBf16IsRoundedToTheNearest) { check_every_number<BFloat16>(); }
TEST(Silu, EveryFp16IsRoundedToTheNearest) { check_every_number<Float16>(); }

TEST(Silu, SpecialValuesAreTorchs) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(cuda::silu(inf), inf);
  EXPECT_TRUE(std::isnan(cuda::silu(-inf)));
  EXPECT_TRUE(std::isnan(cuda::silu(std::nanf(""))));
  EXPECT_EQ(float_bits(cuda::silu(0.0f)), 0u);
  EXPECT_EQ(float_bits(cuda::silu(-0.0f)), 0x80000000u);
  EXPECT_EQ(float_bits(cuda::silu(-89.0f)), 0x80000000u);  // e^89 is Inf in fp32
  EXPECT_LT(cuda::silu(-88.7f), 0.0f);
  EXPECT_EQ(cuda::silu(3e38f), 3e38f);
}

}  // namespace
