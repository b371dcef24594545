// What lanes of a warp do together: shuffles, votes, matches, reductions, elections.
#include "instructions/decode.h"

namespace emu {
namespace {

enum : int { kUp, kDown, kButterfly, kIndex };

// o.a: value; o.b: lane or offset; o.c: clamp and segments; o.imm: predicate or none
template <int Mode>
void shuffle(Warp& w, const Op& o, u32 m) {
  const u32* a = w.row<u32>(o.a);
  const u32* b = w.row<u32>(o.b);
  const u32* c = w.row<u32>(o.c);
  alignas(64) u32 t[kLanes];
  u32 in_range = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(m >> lane & 1u)) continue;
    const int delta = static_cast<int>(b[lane] & 31u), clamp = static_cast<int>(c[lane] & 31u),
              segment = static_cast<int>(c[lane] >> 8 & 31u);
    const int most = (lane & segment) | (clamp & ~segment), least = lane & segment;
    int j = 0;
    bool ok = false;
    if (Mode == kUp) j = lane - delta, ok = j >= most;
    if (Mode == kDown) j = lane + delta, ok = j <= most;
    if (Mode == kButterfly) j = lane ^ delta, ok = j <= most;
    if (Mode == kIndex) j = least | (delta & ~segment), ok = j <= most;
    if (!ok) j = lane;
    if (!(m >> j & 1u)) violation(w, lane, "shuffles from lane " + std::to_string(j) + ", which does not take part");
    t[lane] = a[j];
    in_range |= static_cast<u32>(ok) << lane;
  }
  put(w.row<u32>(o.d), t, m);
  if (o.imm != ~u64{0}) {
    u32& p = w.predicates[o.imm];
    p = (p & ~m) | (in_range & m);
  }
}

enum : u8 { kAllOf, kAnyOf, kUniform, kBallot };
void vote(Warp& w, const Op& o, u32 m) {
  const u32 p = (w.predicates[o.a] ^ (o.type ? kAll : 0)) & m;
  if (o.flags == kBallot) {
    u32* d = w.row<u32>(o.d);
    for (int i = 0; i < kLanes; ++i) {
      if (m >> i & 1u) d[i] = p;
    }
    return;
  }
  const bool r = o.flags == kAllOf ? p == m : o.flags == kAnyOf ? p != 0 : p == m || p == 0;
  u32& d = w.predicates[o.d];
  d = (d & ~m) | (r ? m : 0);
}

void match_any(Warp& w, const Op& o, u32 m) {
  alignas(64) u32 t[kLanes] = {};
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < kLanes; ++j) {
      const bool equal =
          o.type == 64 ? w.row<u64>(o.a)[i] == w.row<u64>(o.a)[j] : w.row<u32>(o.a)[i] == w.row<u32>(o.a)[j];
      if (equal && (m >> j & 1u)) t[i] |= 1u << j;
    }
  }
  put(w.row<u32>(o.d), t, m);
}

void active_mask(Warp& w, const Op& o, u32 m) {
  alignas(64) u32 t[kLanes];
  for (u32& x : t) x = m;
  put(w.row<u32>(o.d), t, m);
}

void reduce(Warp& w, const Op& o, u32 m) {
  const u32* a = w.row<u32>(o.a);
  const std::string& what = o.wide->text;
  const bool is_signed = o.type;
  u32 r = 0;
  bool first = true;
  for (int i = 0; i < kLanes; ++i) {
    if (!(m >> i & 1u)) continue;
    if (first) {
      r = a[i], first = false;
    } else if (what == "add") {
      r += a[i];
    } else if (what == "and") {
      r &= a[i];
    } else if (what == "or") {
      r |= a[i];
    } else if (what == "xor") {
      r ^= a[i];
    } else {
      const bool less = is_signed ? static_cast<i32>(a[i]) < static_cast<i32>(r) : a[i] < r;
      if (less == (what == "min")) r = a[i];
    }
  }
  alignas(64) u32 t[kLanes];
  for (u32& x : t) x = r;
  put(w.row<u32>(o.d), t, m);
}

void elect(Warp& w, const Op& o, u32 m) {
  const u32 leader = static_cast<u32>(__builtin_ctz(m));
  alignas(64) u32 t[kLanes];
  for (u32& x : t) x = leader;
  put(w.row<u32>(o.d), t, m);
  if (o.imm != ~u64{0}) {
    u32& p = w.predicates[o.imm];
    p = (p & ~m) | 1u << leader;
  }
}

}  // namespace

bool decode_warp_function(Decoder& d, const Instruction& in, Op& op) {
  const std::string& name = in.parts[0];
  const auto& o = in.operands;
  const auto members = [&](const Operand& x) { op.members = static_cast<int>(d.source(x, 32)); };
  const auto pair = [&](const Operand& x) {
    op.imm = ~u64{0};
    if (x.kind == Operand::kPair) {
      op.d = d.destination(x.items[0]);
      op.imm = d.predicate(x.items[1]);
    } else {
      op.d = d.destination(x);
    }
  };
  if (name == "shfl") {
    if (o.size() != 5) return false;
    op.cls = Class::kShuffle;
    op.flow = Flow::kConverge;
    pair(o[0]);
    op.a = d.source(o[1], 32), op.b = d.source(o[2], 32), op.c = d.source(o[3], 32);
    members(o[4]);
    op.run = in.has("up")     ? shuffle<kUp>
             : in.has("down") ? shuffle<kDown>
             : in.has("bfly") ? shuffle<kButterfly>
                              : shuffle<kIndex>;
    return true;
  }
  if (name == "vote") {
    op.cls = Class::kShuffle;
    op.flow = Flow::kConverge;
    op.flags = in.has("ballot") ? kBallot : in.has("all") ? kAllOf : in.has("any") ? kAnyOf : kUniform;
    op.d = op.flags == kBallot ? d.destination(o[0]) : d.predicate(o[0]);
    op.a = d.predicate(o[1]);
    op.type = o[1].negated;
    members(o[2]);
    op.run = vote;
    return true;
  }
  if (name == "match") {
    if (!in.has("any")) return false;
    op.cls = Class::kShuffle;
    op.flow = Flow::kConverge;
    op.type = static_cast<u8>(type_bits(in.parts.back()));
    op.d = d.destination(o[0]), op.a = d.source(o[1], op.type);
    members(o[2]);
    op.run = match_any;
    return true;
  }
  if (name == "redux") {
    op.cls = Class::kShuffle;
    op.flow = Flow::kConverge;
    op.wide = std::make_unique<WideOperand>();
    op.wide->text = in.parts[2];
    op.type = in.parts.back() == "s32";
    op.d = d.destination(o[0]), op.a = d.source(o[1], 32);
    members(o[2]);
    op.run = reduce;
    return in.parts.back() != "f32";
  }
  if (name == "activemask") {
    op.cls = Class::kShuffle;
    op.d = d.destination(o[0]);
    op.run = active_mask;
    return true;
  }
  if (name == "elect") {
    op.cls = Class::kShuffle;
    op.flow = Flow::kConverge;
    pair(o[0]);
    members(o[1]);
    op.run = elect;
    return true;
  }
  return false;
}

}  // namespace emu
