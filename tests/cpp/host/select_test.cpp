#include "amber/select.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "amber/metadata.h"
#include "amber/pattern.h"

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// Independent of the rank count: a stable sort of the scores, NaN first.
uint32_t by_sorting(const std::vector<float>& score, int n) {
  std::vector<int> order(score.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    if (std::isnan(score[a]) || std::isnan(score[b])) return std::isnan(score[a]) && !std::isnan(score[b]);
    return score[a] > score[b];
  });
  uint32_t mask = 0;
  for (int i = 0; i < n; ++i) mask |= 1u << order[i];
  return mask;
}

template <int M>
uint32_t fixed(const std::vector<uint32_t>& key, int n) {
  uint32_t keys[M];
  std::copy(key.begin(), key.end(), keys);
  return amber::survivors<M>(keys, n);
}

TEST(Pattern, AllowsExactlyOneToThirtyTwo) {
  EXPECT_TRUE((amber::Pattern{1, 1}.valid()));
  EXPECT_TRUE((amber::Pattern{32, 32}.valid()));
  EXPECT_FALSE((amber::Pattern{0, 4}.valid()));
  EXPECT_FALSE((amber::Pattern{5, 4}.valid()));
  EXPECT_FALSE((amber::Pattern{1, 33}.valid()));
  EXPECT_FALSE((amber::Pattern{-1, 4}.valid()));
}

TEST(ScoreKey, OrdersAsScoresDo) {
  const std::vector<float> ascending{0.0f, 1e-45f, 1e-38f, 0.5f, 1.0f, 3e38f, kInf, kNan};
  for (size_t i = 1; i < ascending.size(); ++i) {
    EXPECT_LT(amber::score_key(ascending[i - 1], 1.0f), amber::score_key(ascending[i], 1.0f)) << i;
  }
}

TEST(ScoreKey, IgnoresSignAndNanPayload) {
  EXPECT_EQ(amber::score_key(-0.0f, 2.0f), amber::score_key(0.0f, 2.0f));
  EXPECT_EQ(amber::score_key(-3.0f, 2.0f), amber::score_key(3.0f, 2.0f));
  EXPECT_EQ(amber::score_key(-kInf, 2.0f), amber::score_key(kInf, 0.5f));
  EXPECT_EQ(amber::score_key(std::nanf("123"), 1.0f), amber::score_key(-kNan, 7.0f));
}

TEST(Survivors, TiesKeepTheLowerIndex) {
  const uint32_t keys[4] = {5, 5, 5, 5};
  EXPECT_EQ(amber::survivors<4>(keys, 2), 0b0011u);
  const uint32_t mixed[4] = {1, 5, 1, 5};
  EXPECT_EQ(amber::survivors<4>(mixed, 3), 0b1011u);
}

TEST(Survivors, EqualsASortForEveryPattern) {
  std::mt19937 rng(1);
  for (int m = 1; m <= amber::kMaxM; ++m) {
    for (int n = 1; n <= m; ++n) {
      for (int trial = 0; trial < 30; ++trial) {
        std::vector<float> score(m);
        std::vector<uint32_t> key(m);
        for (int i = 0; i < m; ++i) {
          const int kind = rng() % 12;
          score[i] = kind == 0   ? kNan
                     : kind == 1 ? kInf
                     : kind == 2 ? 0.0f
                                 : static_cast<float>(rng() % 6);  // few values: many ties
          key[i] = amber::score_key(score[i], 1.0f);
        }
        const uint32_t expected = by_sorting(score, n);
        ASSERT_EQ(amber::survivors(key.data(), n, m), expected) << n << ":" << m;
        if (m == 4) {
          ASSERT_EQ(fixed<4>(key, n), expected);
        }
        if (m == 4 && n == 2) {
          const uint32_t keys[4] = {key[0], key[1], key[2], key[3]};
          ASSERT_EQ(amber::survivors_2_4(keys), expected);
        }
        if (m == 8) {
          ASSERT_EQ(fixed<8>(key, n), expected);
        }
        if (m == 16) {
          ASSERT_EQ(fixed<16>(key, n), expected);
        }
      }
    }
  }
}

// Only the order of the keys matters, and four of them have no more than four places in it: these are all cases.
TEST(Tournament, IsTheRankCountForEveryOrderOfFourKeys) {
  for (int order = 0; order < 256; ++order) {
    const uint32_t key[4] = {order & 3u, order >> 2 & 3u, order >> 4 & 3u, order >> 6 & 3u};
    const uint32_t outcome = amber::tournament_2_4(key[0], key[1], key[2], key[3]);
    const uint32_t kept = amber::survivors<4>(key, 2);
    ASSERT_EQ(amber::tournament_mask(outcome), kept) << order;
    ASSERT_EQ(amber::survivors_2_4(key), kept) << order;
    const uint32_t nibble = amber::metadata_nibble(kept), first = nibble & 3u, second = nibble >> 2;
    ASSERT_EQ(outcome >> 28, nibble) << order;
    const uint32_t bytes_of_first = 0x10u + 0x22u * first, bytes_of_second = 0x10u + 0x22u * second;
    ASSERT_EQ(outcome & 0xffffu, bytes_of_first | bytes_of_second << 8) << order;
  }
}

// The same from scores, with what keys do to NaN, Inf, zeros and subnormal products.
TEST(Tournament, KeepsTheTwoBestScores) {
  const float values[] = {0.0f,  -0.0f, 1e-45f, -1e-45f, 1e-38f, -1e-38f, 1.0f,
                          -1.0f, 2.0f,  3e38f,  -3e38f,  kInf,   -kInf,   kNan};
  for (float c : {1.0f, 0.5f, 3.0f}) {
    for (float x0 : values) {
      for (float x1 : values) {
        for (float x2 : values) {
          for (float x3 : values) {
            const float x[4] = {x0, x1, x2, x3};
            uint32_t key[4];
            std::vector<float> score(4);
            for (int i = 0; i < 4; ++i) key[i] = amber::score_key(x[i], c), score[i] = std::fabs(x[i]) * c;
            ASSERT_EQ(amber::survivors_2_4(key), by_sorting(score, 2)) << x0 << " " << x1 << " " << x2 << " " << x3;
          }
        }
      }
    }
  }
}

}  // namespace
