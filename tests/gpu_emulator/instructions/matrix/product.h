// What mma and wgmma share: elements, fragments and the product of 16 rows, a warp's share.
//
// A warp holds 16 rows of the result. In a fragment, lane 4g + t has rows g and g + 8, columns 8j + 2t and
// 8j + 2t + 1. Sparse operands keep 2 of 4 values; a nibble of metadata has their two columns.
#pragma once

#include <cstring>

#include "instructions/decode.h"

namespace emu {

enum Type : u8 { kHalf, kBf16, kE4m3, kE5m2, kS8, kU8, kNone };

Type type_of(const std::string& t);

inline int bytes_of(u8 t) { return t <= kBf16 ? 2 : 1; }
inline bool is_integer(u8 t) { return t == kS8 || t == kU8; }

struct Shape {
  int m = 0, n = 0, k = 0;
};

Shape shape_of(const Instruction& in);
const float* e4m3_table();

// An element as fp32 bits, or as an s32.
inline u32 widen(u8 type, const u8* p) {
  switch (type) {
    case kHalf: {
      u16 v;
      std::memcpy(&v, p, 2);
      return bits<u32>(half_to_float(v));
    }
    case kBf16: {
      u16 v;
      std::memcpy(&v, p, 2);
      return static_cast<u32>(v) << 16;
    }
    case kE4m3:
      return bits<u32>(e4m3_table()[*p]);
    case kE5m2:
      return bits<u32>(e5m2_to_float(*p));
    case kS8:
      return static_cast<u32>(static_cast<i32>(static_cast<i8>(*p)));
    default:
      return *p;
  }
}

constexpr int kMaxN = 256, kMaxK = 64;

// One warp's product: 16 rows of A, each a list of (k, value).
struct Rows {
  u32 value[16][kMaxK];
  u8 k[16][kMaxK];
  int count;  // per row
};

// acc [16][n] += A * B, B as [k][n]. Products of floats are summed in fp32, one after the other.
void multiply_float(const Rows& a, const float* b, int n, float* acc);
void multiply_integer(const Rows& a, const i32* b, int n, i32* acc, bool saturate);

void load_accumulators(const Warp& w, const std::vector<u32>& rows, int n, u32* acc);
void store_accumulators(Warp& w, const std::vector<u32>& rows, int n, const u32* acc, bool is_float);

// a.value has the values that were kept, in order; sets their columns. `selector` names the lanes that have them.
void expand_sparse(Warp& w, Rows& a, const u32* metadata, int element_bytes, int selector, int k, bool tolerant);

}  // namespace emu
