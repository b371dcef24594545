// cp.async: copies that become visible only at their wait.
#include <algorithm>
#include <cstring>

#include "instructions/memory/access.h"

namespace emu {
namespace {

void apply_copies(Warp& w, std::vector<Warp::Copy>& copies) {
  for (const Warp::Copy& c : copies) {
    u8* to = shared_pointer(w, static_cast<int>(c.lane), c.shared, c.bytes, true);
    if (c.fill < c.bytes) std::memset(to, 0, c.bytes);
    if (c.fill) std::memcpy(to, reinterpret_cast<const void*>(c.global), c.fill);
  }
  copies.clear();
}

// o.a: global address; o.b: shared address (32 bits); o.imm: bytes; o.c: row of the source size where kFill
void copy_async(Warp& w, const Op& o, u32 m) {
  alignas(64) u64 t[kLanes];
  lane_addresses(w, o, t);
  const u32 bytes = static_cast<u32>(o.imm);
  const bool is64 = o.wide->a;
  u32 loaded = 0;
  u32 shared_address[kLanes] = {};
  for (int i = 0; i < kLanes; ++i) {
    if (!(m >> i & 1u)) continue;
    const u32 shared = static_cast<u32>(is64 ? w.row<u64>(o.b)[i] : w.row<u32>(o.b)[i]) + static_cast<u32>(o.wide->b);
    shared_address[i] = shared;
    u32 fill = bytes;
    if (o.flags & kFill) fill = std::min(bytes, w.row<u32>(o.c)[i]);
    if (shared % bytes) violation(w, i, "misaligned cp.async to shared memory");
    if (t[i] % bytes && fill) violation(w, i, "misaligned cp.async from " + hex(t[i]));
    if (fill) {
      Allocation* a = find_allocation(*w.launch->memory, t[i]);
      if (!a || t[i] - a->base + fill > a->bytes) violation(w, i, "cp.async loads out of bounds at " + hex(t[i]));
      touch(w, i, *a, t[i], fill, false);
      loaded |= 1u << i;
    }
    w.copy_groups.back().push_back({static_cast<u32>(i), shared, bytes, fill, t[i]});
    w.stats->cp_async_bytes += fill;
  }
  if (loaded) count_global(w, t, loaded, bytes, false);
  count_shared(w.stats->shared_store, shared_address, m, bytes);
}

void copy_commit(Warp& w, const Op&, u32) { w.copy_groups.emplace_back(); }

void copy_wait(Warp& w, const Op& o, u32) {
  // At most o.imm committed groups stay; the last one is open.
  const bool all = o.flags;
  while (!w.copy_groups.empty() && (all || w.copy_groups.size() - 1 > o.imm)) {
    apply_copies(w, w.copy_groups.front());
    w.copy_groups.erase(w.copy_groups.begin());
  }
  if (w.copy_groups.empty()) w.copy_groups.emplace_back();
}

}  // namespace

bool decode_copy_async(Decoder& d, const Instruction& in, Op& op) {
  const std::string& name = in.parts[0];
  const auto& o = in.operands;
  if (name == "cp" && in.parts.size() > 1 && in.parts[1] == "async" && !in.has("bulk")) {
    op.cls = Class::kAsyncCopy;
    if (in.parts[2] == "commit_group") {
      op.run = copy_commit;
      return true;
    }
    if (in.parts[2] == "wait_group" || in.parts[2] == "wait_all") {
      op.flags = in.parts[2] == "wait_all";
      op.imm = op.flags ? 0 : o[0].value;
      op.run = copy_wait;
      return true;
    }
    if (in.parts[2] != "cg" && in.parts[2] != "ca") return false;
    Op shared;
    d.address(o[0], shared);
    d.address(o[1], op);
    op.wide = std::make_unique<WideOperand>();
    op.b = shared.a;
    op.wide->a = shared.flags & kAddress64;
    op.wide->b = static_cast<u64>(shared.offset);
    op.imm = o[2].value;
    const bool only_hint = in.has("L2::cache_hint") && o.size() == 4;
    if (o.size() > 3 && !only_hint) {
      if (o[3].kind == Operand::kRegister && d.bits_of(o[3]) == 1) return false;
      op.flags |= kFill;
      op.c = d.source(o[3], 32);
    }
    op.run = copy_async;
    return true;
  }
  return false;
}

}  // namespace emu
