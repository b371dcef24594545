// Arithmetic, logic, comparisons and moves: every operation runs on the 32 lanes at once.
#include <unordered_map>

#include "instructions/decode.h"

namespace emu {
namespace {

// A handler from an expression of lane values. D, A, B, C: how rows are read and written; 16-bit registers
// are rows of 32-bit lanes whose upper half is zero.
template <typename D, typename A, typename F>
inline void map1(Warp& w, const Op& o, u32 m, F f) {
  const A* a = w.row<A>(o.a);
  alignas(64) D t[kLanes];
  for (int i = 0; i < kLanes; ++i) t[i] = f(a[i]);
  put(w.row<D>(o.d), t, m);
}

template <typename D, typename A, typename B, typename F>
inline void map2(Warp& w, const Op& o, u32 m, F f) {
  const A* a = w.row<A>(o.a);
  const B* b = w.row<B>(o.b);
  alignas(64) D t[kLanes];
  for (int i = 0; i < kLanes; ++i) t[i] = f(a[i], b[i]);
  put(w.row<D>(o.d), t, m);
}

template <typename D, typename A, typename B, typename C, typename F>
inline void map3(Warp& w, const Op& o, u32 m, F f) {
  const A* a = w.row<A>(o.a);
  const B* b = w.row<B>(o.b);
  const C* c = w.row<C>(o.c);
  alignas(64) D t[kLanes];
  for (int i = 0; i < kLanes; ++i) t[i] = f(a[i], b[i], c[i]);
  put(w.row<D>(o.d), t, m);
}

#define OP1(D, A, E) [](Warp& w, const Op& o, u32 m) { map1<D, A>(w, o, m, [](A a) -> D { return E; }); }
#define OP2(D, A, B, E) [](Warp& w, const Op& o, u32 m) { map2<D, A, B>(w, o, m, [](A a, B b) -> D { return E; }); }
#define OP3(D, A, B, C, E) \
  [](Warp& w, const Op& o, u32 m) { map3<D, A, B, C>(w, o, m, [](A a, B b, C c) -> D { return E; }); }

u32 h(float f) { return float_to_half_rn(f); }
float hf(u32 x) { return half_to_float(static_cast<u16>(x)); }
u32 bf(float f) { return float_to_bf16_rn(f); }
float bff(u32 x) { return bf16_to_float(static_cast<u16>(x)); }

// min and max of PTX: of a number and NaN, the number; +0 is greater than -0.
template <typename T>
T min_number(T a, T b) {
  if (a != a) return canonical(b);
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? a : b;
  return a < b ? a : b;
}
template <typename T>
T max_number(T a, T b) {
  if (a != a) return canonical(b);
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? b : a;
  return a > b ? a : b;
}
template <typename T>
T min_nan(T a, T b) {
  return a != a || b != b ? canonical(std::numeric_limits<T>::quiet_NaN()) : min_number(a, b);
}
template <typename T>
T max_nan(T a, T b) {
  return a != a || b != b ? canonical(std::numeric_limits<T>::quiet_NaN()) : max_number(a, b);
}

float saturate(float x) { return x != x ? 0.0f : x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x; }
float flush(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

u32 prmt(u32 a, u32 b, u32 c) {
  const u64 bytes = static_cast<u64>(b) << 32 | a;
  u32 r = 0;
  for (int i = 0; i < 4; ++i) {
    const u32 s = c >> (4 * i);
    u32 v = static_cast<u32>(bytes >> (8 * (s & 7u))) & 0xffu;
    v = (s & 8u) ? ((v & 0x80u) ? 0xffu : 0u) : v;
    r |= v << (8 * i);
  }
  return r;
}

template <typename T>
u32 leading_zeros(T x) {
  if (x == 0) return sizeof(T) * 8;
  return sizeof(T) == 8 ? static_cast<u32>(__builtin_clzll(x)) : static_cast<u32>(__builtin_clz(static_cast<u32>(x)));
}

template <typename T>
T bit_reverse(T x) {
  T r = 0;
  for (size_t i = 0; i < sizeof(T) * 8; ++i) r |= ((x >> i) & 1) << (sizeof(T) * 8 - 1 - i);
  return r;
}

template <typename U, typename S>
U extract_field(U a, u32 b, u32 c, bool is_signed) {
  const int width = sizeof(U) * 8;
  const int pos = b & 0xff, len = c & 0xff;
  if (len == 0) return 0;
  const int top = std::min(pos + len - 1, width - 1);
  const U sign = is_signed ? (a >> top) & 1 : 0;
  U r = pos < width ? a >> pos : 0;
  const int have = std::max(0, std::min(len, width - pos));
  if (have < width) r &= (U{1} << have) - 1;
  if (sign && have < width) r |= ~U{0} << have;
  if (sign && have == 0) r = ~U{0};
  return r;
}

template <typename U>
U insert_field(U a, U b, u32 c, u32 d) {
  const int width = sizeof(U) * 8;
  const int pos = c & 0xff, len = std::min<int>(d & 0xff, width);
  if (pos >= width || len == 0) return b;
  const U mask = (len >= width ? ~U{0} : (U{1} << len) - 1) << pos;
  return (b & ~mask) | ((a << pos) & mask);
}

i64 mul_hi(i64 a, i64 b) { return static_cast<i64>((static_cast<__int128>(a) * b) >> 64); }
u64 mul_hi(u64 a, u64 b) { return static_cast<u64>((static_cast<unsigned __int128>(a) * b) >> 64); }

template <typename F>
u32 both(u32 a, u32 b, F f) {
  return static_cast<u32>(f(static_cast<u16>(a), static_cast<u16>(b))) |
         static_cast<u32>(f(static_cast<u16>(a >> 16), static_cast<u16>(b >> 16))) << 16;
}
template <typename F>
u32 both3(u32 a, u32 b, u32 c, F f) {
  return static_cast<u32>(f(static_cast<u16>(a), static_cast<u16>(b), static_cast<u16>(c))) |
         static_cast<u32>(f(static_cast<u16>(a >> 16), static_cast<u16>(b >> 16), static_cast<u16>(c >> 16))) << 16;
}

u16 fma_half(u16 a, u16 b, u16 c) {
  return float_to_half(fma_to_odd(half_to_float(a), half_to_float(b), half_to_float(c)));
}
u16 fma_bf16(u16 a, u16 b, u16 c) {
  return double_to_bf16(fma_to_odd(bf16_to_float(a), bf16_to_float(b), bf16_to_float(c)));
}
u16 relu_half(u16 x) { return (x & 0x7fffu) > 0x7c00u ? kNan16 : (x & 0x8000u) ? 0 : x; }
u16 relu_bf16(u16 x) { return (x & 0x7fffu) > 0x7f80u ? kNan16 : (x & 0x8000u) ? 0 : x; }
u16 sat_half(u16 x) { return static_cast<u16>(h(saturate(hf(x)))); }

// ---- comparisons
template <typename T, typename F>
inline u32 compare(Warp& w, const Op& o, F f) {
  using Lane = std::conditional_t<sizeof(T) == 8, u64, u32>;
  alignas(64) Lane t[kLanes];
  if constexpr (sizeof(T) == 2) {
    const u32* a = w.row<u32>(o.a);
    const u32* b = w.row<u32>(o.b);
    for (int i = 0; i < kLanes; ++i) t[i] = f(static_cast<T>(a[i]), static_cast<T>(b[i])) ? ~Lane{0} : 0;
  } else {
    const T* a = w.row<T>(o.a);
    const T* b = w.row<T>(o.b);
    for (int i = 0; i < kLanes; ++i) t[i] = f(a[i], b[i]) ? ~Lane{0} : 0;
  }
  return lane_bits(t);
}

// o.d, o.imm low: predicates p and q (or 0xffffffff); o.c: the third operand; o.flags: combination
enum : u8 { kCombineNone, kCombineAnd, kCombineOr, kCombineXor, kNegateC = 4 };

inline void write_predicate(Warp& w, u32 index, u32 value, u32 m) {
  u32& p = w.predicates[index];
  p = (p & ~m) | (value & m);
}

inline void finish_setp(Warp& w, const Op& o, u32 m, u32 r) {
  u32 p = r, q = ~r;
  if (o.flags) {
    const u32 c = w.predicates[o.c] ^ (o.flags & kNegateC ? kAll : 0);
    switch (o.flags & 3) {
      case kCombineAnd:
        p &= c, q &= c;
        break;
      case kCombineOr:
        p |= c, q |= c;
        break;
      case kCombineXor:
        p ^= c, q ^= c;
        break;
    }
  }
  write_predicate(w, o.d, p, m);
  if (o.imm != ~u64{0}) write_predicate(w, static_cast<u32>(o.imm), q, m);
}

#define CMP(T, E) \
  [](Warp& w, const Op& o, u32 m) { finish_setp(w, o, m, compare<T>(w, o, [](T a, T b) { return E; })); }

template <typename T>
Handler integer_comparison(const std::string& c) {
  if (c == "eq") return CMP(T, a == b);
  if (c == "ne") return CMP(T, a != b);
  if (c == "lt" || c == "lo") return CMP(T, a < b);
  if (c == "le" || c == "ls") return CMP(T, a <= b);
  if (c == "gt" || c == "hi") return CMP(T, a > b);
  if (c == "ge" || c == "hs") return CMP(T, a >= b);
  return nullptr;
}

template <typename T>
Handler float_comparison(const std::string& c) {
  if (c == "eq") return CMP(T, a == b);
  if (c == "ne") return CMP(T, (a < b) || (a > b));
  if (c == "lt") return CMP(T, a < b);
  if (c == "le") return CMP(T, a <= b);
  if (c == "gt") return CMP(T, a > b);
  if (c == "ge") return CMP(T, a >= b);
  if (c == "equ") return CMP(T, !((a < b) || (a > b)));
  if (c == "neu") return CMP(T, a != b);
  if (c == "ltu") return CMP(T, !(a >= b));
  if (c == "leu") return CMP(T, !(a > b));
  if (c == "gtu") return CMP(T, !(a <= b));
  if (c == "geu") return CMP(T, !(a < b));
  if (c == "num") return CMP(T, a == a && b == b);
  if (c == "nan") return CMP(T, a != a || b != b);
  return nullptr;
}

template <bool Bf16, typename F>
inline void compare_half(Warp& w, const Op& o, u32 m, F f) {
  const u32* a = w.row<u32>(o.a);
  const u32* b = w.row<u32>(o.b);
  u32 r = 0;
  for (int i = 0; i < kLanes; ++i) r |= static_cast<u32>(Bf16 ? f(bff(a[i]), bff(b[i])) : f(hf(a[i]), hf(b[i]))) << i;
  finish_setp(w, o, m, r);
}
#define CMPH(B, E) [](Warp& w, const Op& o, u32 m) { compare_half<B>(w, o, m, [](float a, float b) { return E; }); }
template <bool B>
Handler half_comparison(const std::string& c) {
  if (c == "eq") return CMPH(B, a == b);
  if (c == "ne") return CMPH(B, (a < b) || (a > b));
  if (c == "lt") return CMPH(B, a < b);
  if (c == "le") return CMPH(B, a <= b);
  if (c == "gt") return CMPH(B, a > b);
  if (c == "ge") return CMPH(B, a >= b);
  if (c == "neu") return CMPH(B, a != b);
  if (c == "equ") return CMPH(B, !((a < b) || (a > b)));
  if (c == "ltu") return CMPH(B, !(a >= b));
  if (c == "leu") return CMPH(B, !(a > b));
  if (c == "gtu") return CMPH(B, !(a <= b));
  if (c == "geu") return CMPH(B, !(a < b));
  if (c == "nan") return CMPH(B, a != a || b != b);
  if (c == "num") return CMPH(B, a == a && b == b);
  return nullptr;
}

// ---- special registers
u64 special_value(const Warp& w, int lane, int which);
enum Special {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaX,
  kCtaY,
  kCtaZ,
  kNctaX,
  kNctaY,
  kNctaZ,
  kLaneId,
  kWarpId,
  kNwarpId,
  kSmId,
  kNsmId,
  kClusterIdX,
  kClusterIdY,
  kClusterIdZ,
  kNclusterX,
  kNclusterY,
  kNclusterZ,
  kClusterCtaX,
  kClusterCtaY,
  kClusterCtaZ,
  kClusterNctaX,
  kClusterNctaY,
  kClusterNctaZ,
  kClusterRank,
  kClusterSize,
  kClock,
  kTimer,
  kDynamicShared,
  kTotalShared,
  kMaskEq,
  kMaskLt,
  kMaskLe,
  kMaskGt,
  kMaskGe,
  kGridId,
  kExplicitCluster,
  kAggregateShared
};
const std::unordered_map<std::string, int>& specials() {
  static const std::unordered_map<std::string, int> table{{"%tid.x", kTidX},
                                                          {"%tid.y", kTidY},
                                                          {"%tid.z", kTidZ},
                                                          {"%ntid.x", kNtidX},
                                                          {"%ntid.y", kNtidY},
                                                          {"%ntid.z", kNtidZ},
                                                          {"%ctaid.x", kCtaX},
                                                          {"%ctaid.y", kCtaY},
                                                          {"%ctaid.z", kCtaZ},
                                                          {"%nctaid.x", kNctaX},
                                                          {"%nctaid.y", kNctaY},
                                                          {"%nctaid.z", kNctaZ},
                                                          {"%laneid", kLaneId},
                                                          {"%warpid", kWarpId},
                                                          {"%nwarpid", kNwarpId},
                                                          {"%smid", kSmId},
                                                          {"%nsmid", kNsmId},
                                                          {"%clusterid.x", kClusterIdX},
                                                          {"%clusterid.y", kClusterIdY},
                                                          {"%clusterid.z", kClusterIdZ},
                                                          {"%nclusterid.x", kNclusterX},
                                                          {"%nclusterid.y", kNclusterY},
                                                          {"%nclusterid.z", kNclusterZ},
                                                          {"%cluster_ctaid.x", kClusterCtaX},
                                                          {"%cluster_ctaid.y", kClusterCtaY},
                                                          {"%cluster_ctaid.z", kClusterCtaZ},
                                                          {"%cluster_nctaid.x", kClusterNctaX},
                                                          {"%cluster_nctaid.y", kClusterNctaY},
                                                          {"%cluster_nctaid.z", kClusterNctaZ},
                                                          {"%cluster_ctarank", kClusterRank},
                                                          {"%cluster_nctarank", kClusterSize},
                                                          {"%clock", kClock},
                                                          {"%clock64", kClock},
                                                          {"%globaltimer", kTimer},
                                                          {"%globaltimer_lo", kTimer},
                                                          {"%dynamic_smem_size", kDynamicShared},
                                                          {"%total_smem_size", kTotalShared},
                                                          {"%lanemask_eq", kMaskEq},
                                                          {"%lanemask_lt", kMaskLt},
                                                          {"%lanemask_le", kMaskLe},
                                                          {"%lanemask_gt", kMaskGt},
                                                          {"%lanemask_ge", kMaskGe},
                                                          {"%gridid", kGridId},
                                                          {"%is_explicit_cluster", kExplicitCluster},
                                                          {"%aggr_smem_size", kAggregateShared}};
  return table;
}

u64 special_value(const Warp& w, int lane, int which) {
  const Launch& l = *w.launch;
  const Cta& c = *w.cta;
  const u32 t = w.thread(lane);
  switch (which) {
    case kTidX:
      return t % l.block.x;
    case kTidY:
      return t / l.block.x % l.block.y;
    case kTidZ:
      return t / l.block.x / l.block.y;
    case kNtidX:
      return l.block.x;
    case kNtidY:
      return l.block.y;
    case kNtidZ:
      return l.block.z;
    case kCtaX:
      return c.index[0];
    case kCtaY:
      return c.index[1];
    case kCtaZ:
      return c.index[2];
    case kNctaX:
      return l.grid.x;
    case kNctaY:
      return l.grid.y;
    case kNctaZ:
      return l.grid.z;
    case kLaneId:
      return lane;
    case kWarpId:
      return w.id;
    case kNwarpId:
      return c.warps.size();
    case kSmId:
      return (c.index[0] + c.index[1] * l.grid.x) % l.sm_count;
    case kNsmId:
      return l.sm_count;
    case kClusterIdX:
      return c.index[0] / l.cluster.x;
    case kClusterIdY:
      return c.index[1] / l.cluster.y;
    case kClusterIdZ:
      return c.index[2] / l.cluster.z;
    case kNclusterX:
      return l.grid.x / l.cluster.x;
    case kNclusterY:
      return l.grid.y / l.cluster.y;
    case kNclusterZ:
      return l.grid.z / l.cluster.z;
    case kClusterCtaX:
      return c.index[0] % l.cluster.x;
    case kClusterCtaY:
      return c.index[1] % l.cluster.y;
    case kClusterCtaZ:
      return c.index[2] % l.cluster.z;
    case kClusterNctaX:
      return l.cluster.x;
    case kClusterNctaY:
      return l.cluster.y;
    case kClusterNctaZ:
      return l.cluster.z;
    case kClusterRank:
      return c.rank;
    case kClusterSize:
      return l.cluster.count();
    case kClock:
      return w.cluster->turn * 64;
    case kTimer:
      return w.cluster->turn * 64;
    case kDynamicShared:
      return l.dynamic_shared;
    case kTotalShared:
    case kAggregateShared:
      return c.shared.size();
    case kMaskEq:
      return 1u << lane;
    case kMaskLt:
      return (1u << lane) - 1;
    case kMaskLe:
      return (2u << lane) - 1;
    case kMaskGt:
      return ~((2u << lane) - 1);
    case kMaskGe:
      return ~((1u << lane) - 1);
    case kGridId:
      return l.serial;
    case kExplicitCluster:
      return l.cluster.count() > 1;
  }
  return 0;
}

void move_special32(Warp& w, const Op& o, u32 m) {
  alignas(64) u32 t[kLanes];
  for (int i = 0; i < kLanes; ++i) t[i] = static_cast<u32>(special_value(w, i, static_cast<int>(o.offset)));
  put(w.row<u32>(o.d), t, m);
}
void move_special64(Warp& w, const Op& o, u32 m) {
  alignas(64) u64 t[kLanes];
  for (int i = 0; i < kLanes; ++i) t[i] = special_value(w, i, static_cast<int>(o.offset));
  put(w.row<u64>(o.d), t, m);
}

// mov between a register and a vector of smaller ones. o.type: bits of the parts
void move_pack(Warp& w, const Op& o, u32 m) {
  const auto& parts = o.wide->rows;
  const int part = o.type, whole = o.vec;
  if (whole == 32) {
    alignas(64) u32 t[kLanes] = {};
    for (size_t p = 0; p < parts.size(); ++p) {
      const u32* a = w.row<u32>(parts[p]);
      const u32 keep = part == 16 ? 0xffffu : part == 8 ? 0xffu : kAll;
      for (int i = 0; i < kLanes; ++i) t[i] |= (a[i] & keep) << (part * p);
    }
    put(w.row<u32>(o.d), t, m);
  } else {
    alignas(64) u64 t[kLanes] = {};
    for (size_t p = 0; p < parts.size(); ++p) {
      const u32* a = w.row<u32>(parts[p]);
      const u64 keep = part == 16 ? 0xffffu : part == 8 ? 0xffu : kAll;
      for (int i = 0; i < kLanes; ++i) t[i] |= (a[i] & keep) << (part * p);
    }
    put(w.row<u64>(o.d), t, m);
  }
}
void move_unpack(Warp& w, const Op& o, u32 m) {
  const auto& parts = o.wide->rows;
  const int part = o.type, whole = o.vec;
  const u64 keep = part == 16 ? 0xffffu : part == 8 ? 0xffu : kAll;
  alignas(64) u64 from[kLanes];
  if (whole == 32) {
    for (int i = 0; i < kLanes; ++i) from[i] = w.row<u32>(o.a)[i];
  } else {
    for (int i = 0; i < kLanes; ++i) from[i] = w.row<u64>(o.a)[i];
  }
  for (size_t p = 0; p < parts.size(); ++p) {
    alignas(64) u32 t[kLanes];
    for (int i = 0; i < kLanes; ++i) t[i] = static_cast<u32>(from[i] >> (part * p) & keep);
    put(w.row<u32>(parts[p]), t, m);
  }
}

void move_predicate(Warp& w, const Op& o, u32 m) {
  const u32 value = o.flags ? (o.imm ? kAll : 0) : w.predicates[o.a] ^ (o.type ? kAll : 0);
  write_predicate(w, o.d, value, m);
}
template <int Which>
void logic_predicate(Warp& w, const Op& o, u32 m) {
  const u32 a = w.predicates[o.a] ^ (o.flags & 1 ? kAll : 0), b = w.predicates[o.b] ^ (o.flags & 2 ? kAll : 0);
  write_predicate(w, o.d, Which == 0 ? a & b : Which == 1 ? a | b : Which == 2 ? a ^ b : ~a, m);
}

template <typename T>
void select(Warp& w, const Op& o, u32 m) {
  const u32 p = w.predicates[o.c] ^ (o.flags ? kAll : 0);
  // a where p, else b: two masked copies would alias; build the result first.
  alignas(64) T t[kLanes];
  const T* a = w.row<T>(o.a);
  const T* b = w.row<T>(o.b);
  std::memcpy(t, b, sizeof t);
  put(t, a, p);
  put(w.row<T>(o.d), t, m);
}

void lop3(Warp& w, const Op& o, u32 m) {
  const u32 lut = static_cast<u32>(o.imm);
  const u32* a = w.row<u32>(o.a);
  const u32* b = w.row<u32>(o.b);
  const u32* c = w.row<u32>(o.c);
  alignas(64) u32 t[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    u32 r = 0;
    if (lut & 1) r |= ~a[i] & ~b[i] & ~c[i];
    if (lut & 2) r |= ~a[i] & ~b[i] & c[i];
    if (lut & 4) r |= ~a[i] & b[i] & ~c[i];
    if (lut & 8) r |= ~a[i] & b[i] & c[i];
    if (lut & 16) r |= a[i] & ~b[i] & ~c[i];
    if (lut & 32) r |= a[i] & ~b[i] & c[i];
    if (lut & 64) r |= a[i] & b[i] & ~c[i];
    if (lut & 128) r |= a[i] & b[i] & c[i];
    t[i] = r;
  }
  put(w.row<u32>(o.d), t, m);
}

template <typename U, typename S, bool Signed>
void bit_field_extract(Warp& w, const Op& o, u32 m) {
  map3<U, U, u32, u32>(w, o, m, [](U a, u32 b, u32 c) { return extract_field<U, S>(a, b, c, Signed); });
}

template <typename U>
void bit_field_insert(Warp& w, const Op& o, u32 m) {
  const U* a = w.row<U>(o.a);
  const U* b = w.row<U>(o.b);
  const u32* c = w.row<u32>(o.c);
  const u32* e = w.row<u32>(static_cast<u32>(o.imm));
  alignas(64) U t[kLanes];
  for (int i = 0; i < kLanes; ++i) t[i] = insert_field<U>(a[i], b[i], c[i], e[i]);
  put(w.row<U>(o.d), t, m);
}

template <bool ASigned, bool BSigned>
void dp4a(Warp& w, const Op& o, u32 m) {
  map3<u32, u32, u32, u32>(w, o, m, [](u32 a, u32 b, u32 c) {
    i32 sum = static_cast<i32>(c);
    for (int i = 0; i < 4; ++i) {
      const i32 x = ASigned ? static_cast<i8>(a >> (8 * i)) : static_cast<u8>(a >> (8 * i));
      const i32 y = BSigned ? static_cast<i8>(b >> (8 * i)) : static_cast<u8>(b >> (8 * i));
      sum = static_cast<i32>(static_cast<u32>(sum) + static_cast<u32>(x * y));
    }
    return static_cast<u32>(sum);
  });
}

const std::unordered_map<std::string, Handler>& table() {
  static const std::unordered_map<std::string, Handler> t{
      // integers
      {"add.32", OP2(u32, u32, u32, a + b)},
      {"add.64", OP2(u64, u64, u64, a + b)},
      {"add.16", OP2(u32, u32, u32, (a + b) & 0xffffu)},
      {"sub.32", OP2(u32, u32, u32, a - b)},
      {"sub.64", OP2(u64, u64, u64, a - b)},
      {"sub.16", OP2(u32, u32, u32, (a - b) & 0xffffu)},
      {"mul.lo.32", OP2(u32, u32, u32, a * b)},
      {"mul.lo.64", OP2(u64, u64, u64, a * b)},
      {"mul.lo.16", OP2(u32, u32, u32, (a * b) & 0xffffu)},
      {"mul.hi.u32", OP2(u32, u32, u32, static_cast<u32>(static_cast<u64>(a) * b >> 32))},
      {"mul.hi.s32", OP2(i32, i32, i32, static_cast<i32>(static_cast<i64>(a) * b >> 32))},
      {"mul.hi.u64", OP2(u64, u64, u64, mul_hi(a, b))},
      {"mul.hi.s64", OP2(i64, i64, i64, mul_hi(a, b))},
      {"mul.hi.u16", OP2(u32, u32, u32, a * b >> 16)},
      {"mul.hi.s16", OP2(u32, u32, u32, static_cast<u32>(static_cast<i16>(a) * static_cast<i16>(b)) >> 16)},
      {"mul.wide.u32", OP2(u64, u32, u32, static_cast<u64>(a) * b)},
      {"mul.wide.s32", OP2(i64, i32, i32, static_cast<i64>(a) * b)},
      {"mul.wide.u16", OP2(u32, u32, u32, (a & 0xffffu) * (b & 0xffffu))},
      {"mul.wide.s16", OP2(i32, u32, u32, static_cast<i16>(a) * static_cast<i16>(b))},
      {"mad.lo.32", OP3(u32, u32, u32, u32, a * b + c)},
      {"mad.lo.64", OP3(u64, u64, u64, u64, a * b + c)},
      {"mad.lo.16", OP3(u32, u32, u32, u32, (a * b + c) & 0xffffu)},
      {"mad.hi.u32", OP3(u32, u32, u32, u32, static_cast<u32>(static_cast<u64>(a) * b >> 32) + c)},
      {"mad.hi.s32", OP3(u32, i32, i32, u32, static_cast<u32>(static_cast<i64>(a) * b >> 32) + c)},
      {"mad.hi.u64", OP3(u64, u64, u64, u64, mul_hi(a, b) + c)},
      {"mad.hi.s64", OP3(i64, i64, i64, i64, mul_hi(a, b) + c)},
      {"mad.wide.u32", OP3(u64, u32, u32, u64, static_cast<u64>(a) * b + c)},
      {"mad.wide.s32", OP3(i64, i32, i32, i64, static_cast<i64>(a) * b + c)},
      {"mad.wide.u16", OP3(u32, u32, u32, u32, (a & 0xffffu) * (b & 0xffffu) + c)},
      {"mad.wide.s16", OP3(u32, u32, u32, u32, static_cast<u32>(static_cast<i16>(a) * static_cast<i16>(b)) + c)},
      {"div.u32", OP2(u32, u32, u32, b ? a / b : kAll)},
      {"div.u64", OP2(u64, u64, u64, b ? a / b : ~u64{0})},
      {"div.s32", OP2(i32, i32, i32,
                      b == 0    ? -1
                      : b == -1 ? static_cast<i32>(0u - static_cast<u32>(a))
                                : a / b)},
      {"div.s64", OP2(i64, i64, i64,
                      b == 0    ? -1
                      : b == -1 ? static_cast<i64>(u64{0} - static_cast<u64>(a))
                                : a / b)},
      {"div.u16", OP2(u32, u32, u32, b ? a / b : 0xffffu)},
      {"div.s16", OP2(u32, u32, u32, b ? static_cast<u16>(static_cast<i16>(a) / static_cast<i16>(b)) : 0xffffu)},
      {"rem.u32", OP2(u32, u32, u32, b ? a % b : a)},
      {"rem.u64", OP2(u64, u64, u64, b ? a % b : a)},
      {"rem.s32",
       OP2(i32, i32, i32,
           b == 0    ? a
           : b == -1 ? 0
                     : a % b)},
      {"rem.s64",
       OP2(i64, i64, i64,
           b == 0    ? a
           : b == -1 ? 0
                     : a % b)},
      {"rem.u16", OP2(u32, u32, u32, b ? a % b : a)},
      {"rem.s16", OP2(u32, u32, u32, b ? static_cast<u16>(static_cast<i16>(a) % static_cast<i16>(b)) : a)},
      {"min.u32", OP2(u32, u32, u32, a < b ? a : b)},
      {"min.s32", OP2(i32, i32, i32, a < b ? a : b)},
      {"max.u32", OP2(u32, u32, u32, a > b ? a : b)},
      {"max.s32", OP2(i32, i32, i32, a > b ? a : b)},
      {"min.u64", OP2(u64, u64, u64, a < b ? a : b)},
      {"min.s64", OP2(i64, i64, i64, a < b ? a : b)},
      {"max.u64", OP2(u64, u64, u64, a > b ? a : b)},
      {"max.s64", OP2(i64, i64, i64, a > b ? a : b)},
      {"min.u16", OP2(u32, u32, u32, a < b ? a : b)},
      {"max.u16", OP2(u32, u32, u32, a > b ? a : b)},
      {"min.s16", OP2(u32, u32, u32, static_cast<i16>(a) < static_cast<i16>(b) ? a : b)},
      {"max.s16", OP2(u32, u32, u32, static_cast<i16>(a) > static_cast<i16>(b) ? a : b)},
      {"neg.s32", OP1(u32, u32, 0u - a)},
      {"neg.s64", OP1(u64, u64, u64{0} - a)},
      {"neg.s16", OP1(u32, u32, (0u - a) & 0xffffu)},
      {"abs.s32", OP1(u32, i32, a < 0 ? 0u - static_cast<u32>(a) : static_cast<u32>(a))},
      {"abs.s64", OP1(u64, i64, a < 0 ? u64{0} - static_cast<u64>(a) : static_cast<u64>(a))},
      {"and.32", OP2(u32, u32, u32, a & b)},
      {"and.64", OP2(u64, u64, u64, a & b)},
      {"and.16", OP2(u32, u32, u32, a & b)},
      {"or.32", OP2(u32, u32, u32, a | b)},
      {"or.64", OP2(u64, u64, u64, a | b)},
      {"or.16", OP2(u32, u32, u32, a | b)},
      {"xor.32", OP2(u32, u32, u32, a ^ b)},
      {"xor.64", OP2(u64, u64, u64, a ^ b)},
      {"xor.16", OP2(u32, u32, u32, a ^ b)},
      {"not.32", OP1(u32, u32, ~a)},
      {"not.64", OP1(u64, u64, ~a)},
      {"not.16", OP1(u32, u32, ~a & 0xffffu)},
      {"cnot.32", OP1(u32, u32, a == 0 ? 1u : 0u)},
      {"shl.32", OP2(u32, u32, u32, b > 31 ? 0u : a << (b & 31))},
      {"shl.64", OP2(u64, u64, u32, b > 63 ? 0u : a << (b & 63))},
      {"shl.16", OP2(u32, u32, u32, b > 15 ? 0u : (a << (b & 15)) & 0xffffu)},
      {"shr.u32", OP2(u32, u32, u32, b > 31 ? 0u : a >> (b & 31))},
      {"shr.s32", OP2(i32, i32, u32, a >> (b > 31 ? 31 : b))},
      {"shr.u64", OP2(u64, u64, u32, b > 63 ? 0u : a >> (b & 63))},
      {"shr.s64", OP2(i64, i64, u32, a >> (b > 63 ? 63 : b))},
      {"shr.u16", OP2(u32, u32, u32, b > 15 ? 0u : a >> (b & 15))},
      {"shr.s16", OP2(u32, u32, u32, static_cast<u16>(static_cast<i16>(a) >> (b > 15 ? 15 : b)))},
      {"shf.l.wrap", OP3(u32, u32, u32, u32, static_cast<u32>((static_cast<u64>(b) << 32 | a) << (c & 31) >> 32))},
      {"shf.r.wrap", OP3(u32, u32, u32, u32, static_cast<u32>((static_cast<u64>(b) << 32 | a) >> (c & 31)))},
      {"shf.l.clamp",
       OP3(u32, u32, u32, u32, c >= 32 ? a : static_cast<u32>((static_cast<u64>(b) << 32 | a) << c >> 32))},
      {"shf.r.clamp", OP3(u32, u32, u32, u32, c >= 32 ? b : static_cast<u32>((static_cast<u64>(b) << 32 | a) >> c))},
      {"popc.32", OP1(u32, u32, static_cast<u32>(__builtin_popcount(a)))},
      {"popc.64", OP1(u32, u64, static_cast<u32>(__builtin_popcountll(a)))},
      {"clz.32", OP1(u32, u32, leading_zeros(a))},
      {"clz.64", OP1(u32, u64, leading_zeros(a))},
      {"brev.32", OP1(u32, u32, bit_reverse(a))},
      {"brev.64", OP1(u64, u64, bit_reverse(a))},
      {"bfind.u32", OP1(u32, u32, a ? 31 - leading_zeros(a) : kAll)},
      {"bfind.u64", OP1(u32, u64, a ? 63 - leading_zeros(a) : kAll)},
      {"bfind.s32", OP1(u32, i32,
                        leading_zeros(static_cast<u32>(a < 0 ? ~a : a)) == 32
                            ? kAll
                            : 31 - leading_zeros(static_cast<u32>(a < 0 ? ~a : a)))},
      {"bfind.shiftamt.u32", OP1(u32, u32, a ? leading_zeros(a) : kAll)},
      {"prmt", OP3(u32, u32, u32, u32, prmt(a, b, c))},
      {"sad.u32", OP3(u32, u32, u32, u32, c + (a < b ? b - a : a - b))},
      {"sad.s32",
       OP3(u32, i32, i32, u32,
           c + (a < b ? static_cast<u32>(b) - static_cast<u32>(a) : static_cast<u32>(a) - static_cast<u32>(b)))},
      {"mov.32", OP1(u32, u32, a)},
      {"mov.64", OP1(u64, u64, a)},
      {"mov.16", OP1(u32, u32, a)},
      // fp32
      {"add.f32", OP2(float, float, float, canonical(a + b))},
      {"sub.f32", OP2(float, float, float, canonical(a - b))},
      {"mul.f32", OP2(float, float, float, canonical(a * b))},
      {"fma.f32", OP3(float, float, float, float, canonical(__builtin_fmaf(a, b, c)))},
      {"add.ftz.f32", OP2(float, float, float, flush(canonical(flush(a) + flush(b))))},
      {"sub.ftz.f32", OP2(float, float, float, flush(canonical(flush(a) - flush(b))))},
      {"mul.ftz.f32", OP2(float, float, float, flush(canonical(flush(a) * flush(b))))},
      {"fma.ftz.f32", OP3(float, float, float, float, flush(canonical(__builtin_fmaf(flush(a), flush(b), flush(c)))))},
      {"add.sat.f32", OP2(float, float, float, saturate(a + b))},
      {"mul.sat.f32", OP2(float, float, float, saturate(a * b))},
      {"fma.sat.f32", OP3(float, float, float, float, saturate(__builtin_fmaf(a, b, c)))},
      {"div.f32", OP2(float, float, float, canonical(a / b))},
      {"rcp.f32", OP1(float, float, canonical(1.0f / a))},
      {"sqrt.f32", OP1(float, float, canonical(__builtin_sqrtf(a)))},
      {"rsqrt.f32", OP1(float, float, canonical(static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(a)))))},
      {"ex2.f32", OP1(float, float, canonical(std::exp2(a)))},
      {"lg2.f32", OP1(float, float, canonical(std::log2(a)))},
      {"sin.f32", OP1(float, float, canonical(std::sin(a)))},
      {"cos.f32", OP1(float, float, canonical(std::cos(a)))},
      {"tanh.f32", OP1(float, float, canonical(std::tanh(a)))},
      {"min.f32", OP2(float, float, float, min_number(a, b))},
      {"max.f32", OP2(float, float, float, max_number(a, b))},
      {"min.NaN.f32", OP2(float, float, float, min_nan(a, b))},
      {"max.NaN.f32", OP2(float, float, float, max_nan(a, b))},
      {"neg.f32", OP1(u32, u32, a ^ 0x80000000u)},
      {"abs.f32", OP1(u32, u32, a & 0x7fffffffu)},
      {"copysign.f32", OP2(u32, u32, u32, (a & 0x80000000u) | (b & 0x7fffffffu))},
      // fp64
      {"add.f64", OP2(double, double, double, canonical(a + b))},
      {"sub.f64", OP2(double, double, double, canonical(a - b))},
      {"mul.f64", OP2(double, double, double, canonical(a * b))},
      {"fma.f64", OP3(double, double, double, double, canonical(__builtin_fma(a, b, c)))},
      {"div.f64", OP2(double, double, double, canonical(a / b))},
      {"rcp.f64", OP1(double, double, canonical(1.0 / a))},
      {"sqrt.f64", OP1(double, double, canonical(__builtin_sqrt(a)))},
      {"min.f64", OP2(double, double, double, min_number(a, b))},
      {"max.f64", OP2(double, double, double, max_number(a, b))},
      {"neg.f64", OP1(u64, u64, a ^ (u64{1} << 63))},
      {"abs.f64", OP1(u64, u64, a & ~(u64{1} << 63))},
      // fp16 and bf16
      {"add.f16", OP2(u32, u32, u32, h(hf(a) + hf(b)))},
      {"sub.f16", OP2(u32, u32, u32, h(hf(a) - hf(b)))},
      {"mul.f16", OP2(u32, u32, u32, h(hf(a) * hf(b)))},
      {"fma.f16", OP3(u32, u32, u32, u32, fma_half(static_cast<u16>(a), static_cast<u16>(b), static_cast<u16>(c)))},
      {"fma.relu.f16",
       OP3(u32, u32, u32, u32, relu_half(fma_half(static_cast<u16>(a), static_cast<u16>(b), static_cast<u16>(c))))},
      {"min.f16", OP2(u32, u32, u32, h(min_number(hf(a), hf(b))))},
      {"max.f16", OP2(u32, u32, u32, h(max_number(hf(a), hf(b))))},
      {"min.NaN.f16", OP2(u32, u32, u32, h(min_nan(hf(a), hf(b))))},
      {"max.NaN.f16", OP2(u32, u32, u32, h(max_nan(hf(a), hf(b))))},
      {"neg.f16", OP1(u32, u32, a ^ 0x8000u)},
      {"abs.f16", OP1(u32, u32, a & 0x7fffu)},
      {"neg.bf16", OP1(u32, u32, a ^ 0x8000u)},
      {"abs.bf16", OP1(u32, u32, a & 0x7fffu)},
      {"add.bf16", OP2(u32, u32, u32, double_to_bf16(fma_to_odd(bff(a), 1.0, bff(b))))},
      {"sub.bf16", OP2(u32, u32, u32, double_to_bf16(fma_to_odd(bff(a), 1.0, -bff(b))))},
      {"mul.bf16", OP2(u32, u32, u32, double_to_bf16(static_cast<double>(bff(a)) * bff(b)))},
      {"fma.bf16", OP3(u32, u32, u32, u32, fma_bf16(static_cast<u16>(a), static_cast<u16>(b), static_cast<u16>(c)))},
      {"min.bf16", OP2(u32, u32, u32, bf(min_number(bff(a), bff(b))))},
      {"max.bf16", OP2(u32, u32, u32, bf(max_number(bff(a), bff(b))))},
      {"add.f16x2", OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return h(hf(x) + hf(y)); }))},
      {"sub.f16x2", OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return h(hf(x) - hf(y)); }))},
      {"mul.f16x2", OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return h(hf(x) * hf(y)); }))},
      {"add.sat.f16x2",
       OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return sat_half(static_cast<u16>(h(hf(x) + hf(y)))); }))},
      {"fma.f16x2", OP3(u32, u32, u32, u32, both3(a, b, c, fma_half))},
      {"fma.relu.f16x2",
       OP3(u32, u32, u32, u32, both3(a, b, c, [](u16 x, u16 y, u16 z) { return relu_half(fma_half(x, y, z)); }))},
      {"min.f16x2", OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return h(min_number(hf(x), hf(y))); }))},
      {"max.f16x2", OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return h(max_number(hf(x), hf(y))); }))},
      {"add.bf16x2",
       OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return double_to_bf16(fma_to_odd(bff(x), 1.0, bff(y))); }))},
      {"sub.bf16x2",
       OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return double_to_bf16(fma_to_odd(bff(x), 1.0, -bff(y))); }))},
      {"mul.bf16x2",
       OP2(u32, u32, u32,
           both(a, b, [](u16 x, u16 y) { return double_to_bf16(static_cast<double>(bff(x)) * bff(y)); }))},
      {"fma.bf16x2", OP3(u32, u32, u32, u32, both3(a, b, c, fma_bf16))},
      {"fma.relu.bf16x2",
       OP3(u32, u32, u32, u32, both3(a, b, c, [](u16 x, u16 y, u16 z) { return relu_bf16(fma_bf16(x, y, z)); }))},
      {"min.bf16x2", OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return bf(min_number(bff(x), bff(y))); }))},
      {"max.bf16x2", OP2(u32, u32, u32, both(a, b, [](u16 x, u16 y) { return bf(max_number(bff(x), bff(y))); }))},
      {"neg.f16x2", OP1(u32, u32, a ^ 0x80008000u)},
      {"abs.f16x2", OP1(u32, u32, a & 0x7fff7fffu)},
      {"neg.bf16x2", OP1(u32, u32, a ^ 0x80008000u)},
      {"abs.bf16x2", OP1(u32, u32, a & 0x7fff7fffu)},
  };
  return t;
}

bool is_float_type(const std::string& t) { return t[0] == 'f' || t.rfind("bf", 0) == 0; }

Class class_of(const std::string& type) {
  if (type == "f32") return Class::kFloat;
  if (type == "f64") return Class::kDouble;
  if (type == "f16" || type == "f16x2" || type == "bf16" || type == "bf16x2") return Class::kHalf;
  return Class::kInteger;
}

}  // namespace

bool decode_alu(Decoder& d, const Instruction& in, Op& op) {
  const std::string& name = in.parts[0];
  const std::string& type = in.parts.back();
  const int width = in.parts.size() > 1 ? type_bits(type) : 0;
  const auto& o = in.operands;

  if (name == "setp") {
    const std::string& comparison = in.parts[1];
    op.cls = Class::kPredicate;
    if (type == "u16") op.run = integer_comparison<u16>(comparison);
    if (type == "s16" || type == "b16") op.run = integer_comparison<i16>(comparison);
    if (type == "u32" || type == "b32") op.run = integer_comparison<u32>(comparison);
    if (type == "s32") op.run = integer_comparison<i32>(comparison);
    if (type == "u64" || type == "b64") op.run = integer_comparison<u64>(comparison);
    if (type == "s64") op.run = integer_comparison<i64>(comparison);
    if (type == "f32") op.run = float_comparison<float>(comparison);
    if (type == "f64") op.run = float_comparison<double>(comparison);
    if (type == "f16") op.run = half_comparison<false>(comparison);
    if (type == "bf16") op.run = half_comparison<true>(comparison);
    if (!op.run || in.has("ftz")) return false;
    op.imm = ~u64{0};
    if (o[0].kind == Operand::kPair) {
      op.d = d.predicate(o[0].items[0]);
      op.imm = d.predicate(o[0].items[1]);
    } else {
      op.d = d.predicate(o[0]);
    }
    op.a = d.source(o[1], width);
    op.b = d.source(o[2], width);
    op.flags = in.has("and") ? kCombineAnd : in.has("or") ? kCombineOr : in.has("xor") ? kCombineXor : kCombineNone;
    if (op.flags) {
      op.c = d.predicate(o[3]);
      if (o[3].negated) op.flags |= kNegateC;
    }
    return true;
  }
  if (name == "selp") {
    op.cls = Class::kPredicate;
    op.d = d.destination(o[0]);
    op.a = d.source(o[1], width), op.b = d.source(o[2], width), op.c = d.predicate(o[3]);
    op.flags = o[3].negated;
    op.run = width == 64 ? select<u64> : select<u32>;
    return true;
  }
  if (type == "pred" && (name == "and" || name == "or" || name == "xor" || name == "not" || name == "mov")) {
    op.cls = Class::kPredicate;
    op.d = d.predicate(o[0]);
    if (name == "mov") {
      op.run = move_predicate;
      if (o[1].kind == Operand::kImmediate) {
        op.flags = 1, op.imm = o[1].value;
      } else {
        op.a = d.predicate(o[1]), op.type = o[1].negated;
      }
      return true;
    }
    op.a = d.predicate(o[1]);
    op.flags = o[1].negated;
    if (name != "not") op.b = d.predicate(o[2]), op.flags |= static_cast<u8>(o[2].negated << 1);
    op.run = name == "and"   ? logic_predicate<0>
             : name == "or"  ? logic_predicate<1>
             : name == "xor" ? logic_predicate<2>
                             : logic_predicate<3>;
    return true;
  }
  if (name == "mov") {
    op.cls = Class::kMove;
    if (o[0].kind == Operand::kVector || o[1].kind == Operand::kVector) {
      const bool pack = o[1].kind == Operand::kVector;
      const auto& parts = pack ? o[1].items : o[0].items;
      const int part = width / static_cast<int>(parts.size());
      if (width > 64 || part > 32) return false;
      op.wide = std::make_unique<WideOperand>();
      for (const Operand& p : parts) op.wide->rows.push_back(pack ? d.source(p, part) : d.destination(p));
      op.type = static_cast<u8>(part), op.vec = static_cast<u8>(width);
      (pack ? op.d : op.a) = pack ? d.destination(o[0]) : d.source(o[1], width);
      op.run = pack ? move_pack : move_unpack;
      return true;
    }
    if (o[1].kind == Operand::kSpecial) {
      const auto found = specials().find(o[1].name);
      if (found == specials().end()) return false;
      op.d = d.destination(o[0]);
      op.offset = found->second;
      op.run = width == 64 ? move_special64 : move_special32;
      return true;
    }
    op.d = d.destination(o[0]);
    op.a = d.source(o[1], width);
    op.run = table().at(width == 64 ? "mov.64" : "mov.32");
    return true;
  }
  if (name == "lop3") {
    if (o.size() != 5 || in.parts.size() != 2) return false;
    op.cls = Class::kInteger;
    op.d = d.destination(o[0]), op.a = d.source(o[1], 32), op.b = d.source(o[2], 32), op.c = d.source(o[3], 32);
    op.imm = o[4].value;
    op.run = lop3;
    return true;
  }
  if (name == "bfe" || name == "bfi") {
    op.cls = Class::kInteger;
    op.d = d.destination(o[0]), op.a = d.source(o[1], width);
    if (name == "bfe") {
      op.b = d.source(o[2], 32), op.c = d.source(o[3], 32);
      op.run = type == "u32"   ? bit_field_extract<u32, i32, false>
               : type == "s32" ? bit_field_extract<u32, i32, true>
               : type == "u64" ? bit_field_extract<u64, i64, false>
                               : bit_field_extract<u64, i64, true>;
    } else {
      op.b = d.source(o[2], width), op.c = d.source(o[3], 32), op.imm = d.source(o[4], 32);
      op.run = width == 32 ? bit_field_insert<u32> : bit_field_insert<u64>;
    }
    return true;
  }
  if (name == "dp4a") {
    op.cls = Class::kInteger;
    op.d = d.destination(o[0]), op.a = d.source(o[1], 32), op.b = d.source(o[2], 32), op.c = d.source(o[3], 32);
    const bool as = in.parts[1] == "s32", bs = in.parts[2] == "s32";
    op.run = as ? (bs ? dp4a<true, true> : dp4a<true, false>) : (bs ? dp4a<false, true> : dp4a<false, false>);
    return true;
  }
  if (name == "cvta") {
    // Generic addresses equal those of global memory, parameters and constants; shared and local have windows.
    op.cls = Class::kInteger;
    op.d = d.destination(o[0]);
    const bool to = in.parts[1] == "to";
    const std::string& space = in.parts[to ? 2 : 1];
    if (width != 64) return false;
    u64 window = space == "shared" || space.rfind("shared::", 0) == 0 ? kSharedWindow
                 : space == "local"                                   ? kLocalWindow
                                                                      : 0;
    if (o[1].kind == Operand::kSymbol) {
      u64 value;
      if (!d.symbol_value(o[1].name, value)) return false;
      op.a = d.constant(value, 64);
    } else {
      op.a = d.source(o[1], 64);
    }
    op.b = d.constant(to ? u64{0} - window : window, 64);
    op.run = table().at("add.64");
    return true;
  }

  // The rest is in the table, by name, modifiers that change the result, and type.
  static const std::unordered_map<std::string, int> sources{
      {"add", 2},  {"sub", 2},   {"mul", 2},  {"mad", 3}, {"fma", 3},  {"div", 2},     {"rem", 2},
      {"min", 2},  {"max", 2},   {"neg", 1},  {"abs", 1}, {"and", 2},  {"or", 2},      {"xor", 2},
      {"not", 1},  {"cnot", 1},  {"shl", 2},  {"shr", 2}, {"shf", 3},  {"popc", 1},    {"clz", 1},
      {"brev", 1}, {"bfind", 1}, {"prmt", 3}, {"sad", 3}, {"rcp", 1},  {"sqrt", 1},    {"rsqrt", 1},
      {"ex2", 1},  {"lg2", 1},   {"sin", 1},  {"cos", 1}, {"tanh", 1}, {"copysign", 2}};
  const auto found = sources.find(name);
  if (found == sources.end()) return false;
  const int count = found->second;
  if (static_cast<int>(o.size()) != count + 1) return false;
  const bool is_float = is_float_type(type);
  std::string key = name;
  bool wide = false;
  for (size_t i = 1; i + 1 < in.parts.size(); ++i) {
    const std::string& p = in.parts[i];
    if (p == "rn" || p == "approx" || p == "full") continue;
    if (p == "lo" && is_float) return false;
    if (p == "wide") wide = true;
    key += "." + p;
  }
  if (name == "prmt") {
    if (in.parts.size() != 2) return false;
  } else if (name == "shf") {
  } else if (is_float) {
    if (in.has("approx") && in.has("ftz")) {
      // Approximations flush; the plain handler is close enough for them.
      key = name;
    }
    key += "." + type;
  } else {
    // Signedness matters for some.
    const bool by_sign = name == "div" || name == "rem" || name == "min" || name == "max" || name == "shr" ||
                         name == "neg" || name == "abs" || name == "bfind" || name == "sad" || in.has("hi") || wide;
    std::string t = type;
    if (by_sign && t[0] == 'b') t[0] = 'u';
    key += "." + (by_sign ? t : std::to_string(width));
  }
  const auto handler = table().find(key);
  if (handler == table().end()) return false;
  op.cls = class_of(type);
  op.run = handler->second;
  op.d = d.destination(o[0]);
  const bool shift = name == "shl" || name == "shr";
  u32* const fields[3] = {&op.a, &op.b, &op.c};
  for (int i = 0; i < count; ++i) {
    int bits = width;
    if (shift && i == 1) bits = 32;
    if (name == "prmt" || name == "shf") bits = 32;
    if (wide && i == 2) bits = 2 * width;
    *fields[i] = d.source(o[1 + i], bits);
  }
  return true;
}

}  // namespace emu
