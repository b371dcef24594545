// ldmatrix and stmatrix.
#include <cstring>

#include "instructions/memory/access.h"

namespace emu {
namespace {

void load_matrix(Warp& w, const Op& o, u32 m) {
  if (m != kAll) violation(w, 0, "ldmatrix needs all lanes of the warp");
  alignas(64) u64 t[kLanes];
  lane_addresses(w, o, t);
  const u32 count = o.vec;
  u8* p[kLanes];
  u32 s[kLanes] = {};
  for (u32 i = 0; i < 8 * count; ++i) {
    s[i] = static_cast<u32>(t[i]);
    p[i] = shared_pointer(w, static_cast<int>(i), s[i], 16, false, true, true);
  }
  count_shared(w.stats->ldmatrix, s, count == 4 ? kAll : (1u << 8 * count) - 1, 16);
  for (u32 k = 0; k < count; ++k) {
    alignas(64) u32 r[kLanes];
    for (u32 l = 0; l < kLanes; ++l) {
      u16 two[2];
      if (o.flags & kFill) {  // .trans
        std::memcpy(&two[0], p[8 * k + 2 * (l % 4)] + 2 * (l / 4), 2);
        std::memcpy(&two[1], p[8 * k + 2 * (l % 4) + 1] + 2 * (l / 4), 2);
      } else {
        std::memcpy(two, p[8 * k + l / 4] + 4 * (l % 4), 4);
      }
      r[l] = static_cast<u32>(two[1]) << 16 | two[0];
    }
    put(w.row<u32>(o.wide->rows[k]), r, kAll);
  }
}

void store_matrix(Warp& w, const Op& o, u32 m) {
  if (m != kAll) violation(w, 0, "stmatrix needs all lanes of the warp");
  alignas(64) u64 t[kLanes];
  lane_addresses(w, o, t);
  const u32 count = o.vec;
  u8* p[kLanes];
  u32 s[kLanes] = {};
  for (u32 i = 0; i < 8 * count; ++i) {
    s[i] = static_cast<u32>(t[i]);
    p[i] = shared_pointer(w, static_cast<int>(i), s[i], 16, true);
  }
  count_shared(w.stats->stmatrix, s, count == 4 ? kAll : (1u << 8 * count) - 1, 16);
  for (u32 k = 0; k < count; ++k) {
    const u32* r = w.row<u32>(o.wide->rows[k]);
    for (u32 l = 0; l < kLanes; ++l) {
      const u16 two[2] = {static_cast<u16>(r[l]), static_cast<u16>(r[l] >> 16)};
      if (o.flags & kFill) {
        std::memcpy(p[8 * k + 2 * (l % 4)] + 2 * (l / 4), &two[0], 2);
        std::memcpy(p[8 * k + 2 * (l % 4) + 1] + 2 * (l / 4), &two[1], 2);
      } else {
        std::memcpy(p[8 * k + l / 4] + 4 * (l % 4), two, 4);
      }
    }
  }
}

}  // namespace

bool decode_matrix_copy(Decoder& d, const Instruction& in, Op& op) {
  const std::string& name = in.parts[0];
  const std::string& type = in.parts.back();
  const auto& o = in.operands;
  if (name == "ldmatrix" || name == "stmatrix") {
    if (type != "b16" || !in.has("m8n8")) return false;
    const bool st = name == "stmatrix";
    op.cls = st ? Class::kSharedStore : Class::kSharedLoad;
    op.flow = Flow::kConverge;
    op.vec = in.has("x4") ? 4 : in.has("x2") ? 2 : 1;
    d.address(o[st ? 0 : 1], op);
    if (in.has("trans")) op.flags |= kFill;
    op.wide = std::make_unique<WideOperand>();
    const Operand& data = o[st ? 1 : 0];
    if (data.kind == Operand::kVector) {
      for (const Operand& x : data.items) op.wide->rows.push_back(st ? d.source(x, 32) : d.destination(x));
    } else {
      op.wide->rows.push_back(st ? d.source(data, 32) : d.destination(data));
    }
    op.run = st ? store_matrix : load_matrix;
    return true;
  }
  return false;
}

}  // namespace emu
