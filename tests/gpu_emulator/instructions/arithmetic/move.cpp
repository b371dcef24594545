// mov, special registers and cvta.
#include <algorithm>
#include <iterator>

#include "instructions/arithmetic/lanes.h"
#include "machine/shared_memory.h"

namespace emu {
namespace {

struct Special {
  const char* name;
  u64 (*value)(const Warp&, int lane);
};

// Of the launch l, the block c, the warp w, the lane and its thread t.
#define SPECIAL(E)                                      \
  [](const Warp& w, [[maybe_unused]] int lane) -> u64 { \
    [[maybe_unused]] const Launch& l = *w.launch;       \
    [[maybe_unused]] const Cta& c = *w.cta;             \
    [[maybe_unused]] const u32 t = w.thread(lane);      \
    return E;                                           \
  }
const Special kSpecials[] = {
    {"%tid.x", SPECIAL(t % l.block.x)},
    {"%tid.y", SPECIAL(t / l.block.x % l.block.y)},
    {"%tid.z", SPECIAL(t / l.block.x / l.block.y)},
    {"%ntid.x", SPECIAL(l.block.x)},
    {"%ntid.y", SPECIAL(l.block.y)},
    {"%ntid.z", SPECIAL(l.block.z)},
    {"%ctaid.x", SPECIAL(c.index[0])},
    {"%ctaid.y", SPECIAL(c.index[1])},
    {"%ctaid.z", SPECIAL(c.index[2])},
    {"%nctaid.x", SPECIAL(l.grid.x)},
    {"%nctaid.y", SPECIAL(l.grid.y)},
    {"%nctaid.z", SPECIAL(l.grid.z)},
    {"%laneid", SPECIAL(lane)},
    {"%warpid", SPECIAL(w.id)},
    {"%nwarpid", SPECIAL(c.warps.size())},
    {"%smid", SPECIAL((c.index[0] + c.index[1] * l.grid.x) % l.sm_count)},
    {"%nsmid", SPECIAL(l.sm_count)},
    {"%clusterid.x", SPECIAL(c.index[0] / l.cluster.x)},
    {"%clusterid.y", SPECIAL(c.index[1] / l.cluster.y)},
    {"%clusterid.z", SPECIAL(c.index[2] / l.cluster.z)},
    {"%nclusterid.x", SPECIAL(l.grid.x / l.cluster.x)},
    {"%nclusterid.y", SPECIAL(l.grid.y / l.cluster.y)},
    {"%nclusterid.z", SPECIAL(l.grid.z / l.cluster.z)},
    {"%cluster_ctaid.x", SPECIAL(c.index[0] % l.cluster.x)},
    {"%cluster_ctaid.y", SPECIAL(c.index[1] % l.cluster.y)},
    {"%cluster_ctaid.z", SPECIAL(c.index[2] % l.cluster.z)},
    {"%cluster_nctaid.x", SPECIAL(l.cluster.x)},
    {"%cluster_nctaid.y", SPECIAL(l.cluster.y)},
    {"%cluster_nctaid.z", SPECIAL(l.cluster.z)},
    {"%cluster_ctarank", SPECIAL(c.rank)},
    {"%cluster_nctarank", SPECIAL(l.cluster.count())},
    {"%clock", SPECIAL(w.cluster->turn * 64)},
    {"%clock64", SPECIAL(w.cluster->turn * 64)},
    {"%globaltimer", SPECIAL(w.cluster->turn * 64)},
    {"%globaltimer_lo", SPECIAL(w.cluster->turn * 64)},
    {"%dynamic_smem_size", SPECIAL(l.dynamic_shared)},
    {"%total_smem_size", SPECIAL(c.shared.size())},
    {"%lanemask_eq", SPECIAL(1u << lane)},
    {"%lanemask_lt", SPECIAL((1u << lane) - 1)},
    {"%lanemask_le", SPECIAL((2u << lane) - 1)},
    {"%lanemask_gt", SPECIAL(~((2u << lane) - 1))},
    {"%lanemask_ge", SPECIAL(~((1u << lane) - 1))},
    {"%gridid", SPECIAL(l.serial)},
    {"%is_explicit_cluster", SPECIAL(l.cluster.count() > 1)},
    {"%aggr_smem_size", SPECIAL(c.shared.size())},
};
#undef SPECIAL

void move_special32(Warp& w, const Op& o, u32 m) {
  alignas(64) u32 t[kLanes];
  for (int i = 0; i < kLanes; ++i) t[i] = static_cast<u32>(kSpecials[o.offset].value(w, i));
  put(w.row<u32>(o.d), t, m);
}
void move_special64(Warp& w, const Op& o, u32 m) {
  alignas(64) u64 t[kLanes];
  for (int i = 0; i < kLanes; ++i) t[i] = kSpecials[o.offset].value(w, i);
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

}  // namespace

bool decode_move(Decoder& d, const Instruction& in, Op& op) {
  const std::string& name = in.parts[0];
  const std::string& type = in.parts.back();
  const int width = in.parts.size() > 1 ? type_bits(type) : 0;
  const auto& o = in.operands;

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
      const auto found = std::find_if(std::begin(kSpecials), std::end(kSpecials),
                                      [&](const Special& s) { return o[1].name == s.name; });
      if (found == std::end(kSpecials)) return false;
      op.d = d.destination(o[0]);
      op.offset = found - std::begin(kSpecials);
      op.run = width == 64 ? move_special64 : move_special32;
      return true;
    }
    op.d = d.destination(o[0]);
    op.a = d.source(o[1], width);
    op.run = width == 64 ? OP1(u64, u64, a) : OP1(u32, u32, a);
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
    op.run = OP2(u64, u64, u64, a + b);
    return true;
  }

  return false;
}

}  // namespace emu
