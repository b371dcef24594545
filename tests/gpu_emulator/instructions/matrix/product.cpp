// Products, accumulators and metadata of matrix instructions.
#include "instructions/matrix/product.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace emu {

Type type_of(const std::string& t) {
  if (t == "f16") return kHalf;
  if (t == "bf16") return kBf16;
  if (t == "e4m3") return kE4m3;
  if (t == "e5m2") return kE5m2;
  if (t == "s8") return kS8;
  if (t == "u8") return kU8;
  return kNone;
}

Shape shape_of(const Instruction& in) {
  Shape s;
  for (const std::string& p : in.parts) {
    if (std::sscanf(p.c_str(), "m%dn%dk%d", &s.m, &s.n, &s.k) == 3) return s;
  }
  return {};
}

const float* e4m3_table() {
  static const auto table = [] {
    std::array<float, 256> t;
    for (int i = 0; i < 256; ++i) t[i] = e4m3_to_float(static_cast<u8>(i));
    return t;
  }();
  return table.data();
}

namespace {

// In blocks of columns, so that the sums stay in registers.
template <int Block>
void multiply_float_by(const Rows& a, const float* b, int n, float* acc) {
  for (int r = 0; r < 16; ++r) {
    for (int begin = 0; begin < n; begin += Block) {
      float* out = acc + r * n + begin;
      float sum[Block];
      for (int c = 0; c < Block; ++c) sum[c] = out[c];
      for (int i = 0; i < a.count; ++i) {
        const float x = bits<float>(a.value[r][i]);
        const float* row = b + a.k[r][i] * n + begin;
        for (int c = 0; c < Block; ++c) sum[c] = __builtin_fmaf(x, row[c], sum[c]);
      }
      for (int c = 0; c < Block; ++c) out[c] = sum[c];
    }
  }
}
template <int Block>
void multiply_integer_by(const Rows& a, const i32* b, int n, i32* acc, bool saturate) {
  for (int r = 0; r < 16; ++r) {
    for (int begin = 0; begin < n; begin += Block) {
      i32* out = acc + r * n + begin;
      i32 sum[Block] = {};
      for (int i = 0; i < a.count; ++i) {
        const i32 x = static_cast<i32>(a.value[r][i]);
        const i32* row = b + a.k[r][i] * n + begin;
        for (int c = 0; c < Block; ++c) sum[c] += x * row[c];
      }
      for (int c = 0; c < Block; ++c) {
        const i64 total = static_cast<i64>(out[c]) + sum[c];
        out[c] = saturate ? static_cast<i32>(std::min<i64>(INT32_MAX, std::max<i64>(INT32_MIN, total)))
                          : static_cast<i32>(total);
      }
    }
  }
}

}  // namespace

void multiply_float(const Rows& a, const float* b, int n, float* acc) {
  if (n % 64 == 0) return multiply_float_by<64>(a, b, n, acc);
  if (n % 16 == 0) return multiply_float_by<16>(a, b, n, acc);
  multiply_float_by<8>(a, b, n, acc);
}
void multiply_integer(const Rows& a, const i32* b, int n, i32* acc, bool saturate) {
  if (n % 64 == 0) return multiply_integer_by<64>(a, b, n, acc, saturate);
  if (n % 16 == 0) return multiply_integer_by<16>(a, b, n, acc, saturate);
  multiply_integer_by<8>(a, b, n, acc, saturate);
}

void load_accumulators(const Warp& w, const std::vector<u32>& rows, int n, u32* acc) {
  for (int j = 0; j < n / 8; ++j) {
    for (int i = 0; i < 4; ++i) {
      const u32* reg = w.row<u32>(rows[4 * j + i]);
      for (int l = 0; l < kLanes; ++l) acc[(l / 4 + 8 * (i / 2)) * n + 8 * j + 2 * (l % 4) + i % 2] = reg[l];
    }
  }
}
void store_accumulators(Warp& w, const std::vector<u32>& rows, int n, const u32* acc, bool is_float) {
  for (int j = 0; j < n / 8; ++j) {
    for (int i = 0; i < 4; ++i) {
      u32* reg = w.row<u32>(rows[4 * j + i]);
      for (int l = 0; l < kLanes; ++l) {
        u32 v = acc[(l / 4 + 8 * (i / 2)) * n + 8 * j + 2 * (l % 4) + i % 2];
        if (is_float) v = bits<u32>(canonical(bits<float>(v)));
        reg[l] = v;
      }
    }
  }
}

namespace {

// The nibbles of rows 0 .. 15, `words` of 16 (16-bit types) or 32 (8-bit types) columns each.
// 16-bit types: lanes 2 * selector and 2 * selector + 1 of a quad of lanes have columns 0-15 and 16-31, row g in
// the low half, row g + 8 in the high half. 8-bit types: lane 0 of a quad has row g, lane 1 row g + 8, columns
// 0-31; lanes 2 and 3 the same of columns 32-63.
inline u32 nibble_of(const u32* metadata, int element_bytes, int selector, int row, int quad) {
  const int g = row % 8, high = row / 8;
  if (element_bytes == 2) {
    const int lane = 4 * g + 2 * selector + quad / 4;
    return metadata[lane] >> (16 * high + 4 * (quad % 4)) & 15u;
  }
  const int lane = 4 * g + high + 2 * (quad / 8);
  return metadata[lane] >> (4 * (quad % 8)) & 15u;
}

}  // namespace

void expand_sparse(Warp& w, Rows& a, const u32* metadata, int element_bytes, int selector, int k, bool tolerant) {
  for (int r = 0; r < 16; ++r) {
    for (int quad = 0; quad < k / 4; ++quad) {
      const u32 nibble = nibble_of(metadata, element_bytes, selector, r, quad);
      const u32 first = nibble & 3u, second = nibble >> 2;
      // Rows beyond a tensor are loaded as zeros, metadata included; their products are zero whatever the columns.
      const bool used = (a.value[r][2 * quad] << 1) != 0 || (a.value[r][2 * quad + 1] << 1) != 0;
      if (first >= second && used) ++w.stats->disordered_metadata;
      if (first >= second && used && !tolerant)
        violation(w, 0,
                  "has metadata whose indices do not increase (row " + std::to_string(r) + ", columns " +
                      std::to_string(4 * quad) + " up: " + std::to_string(first) + ", " + std::to_string(second) + ")");
      a.k[r][2 * quad] = static_cast<u8>(4 * quad + first);
      a.k[r][2 * quad + 1] = static_cast<u8>(4 * quad + second);
    }
  }
}

}  // namespace emu
