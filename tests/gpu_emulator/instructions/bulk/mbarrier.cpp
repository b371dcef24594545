// mbarriers, fences of the asynchronous proxy, and addresses in other blocks of the cluster.
#include "instructions/bulk/bulk.h"

namespace emu {
namespace {

MBarrier& mbarrier_at(Warp& w, int lane, u32 address) {
  Cta& cta = shared_owner(w, lane, address);
  const auto found = cta.mbarriers.find(shared_offset(address));
  if (found == cta.mbarriers.end())
    violation(w, lane, "uses an mbarrier at " + number(shared_offset(address)) + " that was not initialised");
  return found->second;
}

void advance(Cluster& c, MBarrier& b) {
  if (b.pending == 0 && b.tx == 0) {
    b.pending = b.count;
    ++b.phase;
    ++c.progress;
  }
}

void mbarrier_init(Warp& w, const Op& o, u32 m) {
  for (int i = 0; i < kLanes; ++i) {
    if (!(m >> i & 1u)) continue;
    const u32 address = address32(w, o, i);
    shared_pointer(w, i, address, 8, true, false);
    const u32 count = w.row<u32>(o.b)[i];
    if (count == 0 || count >= 1u << 20) violation(w, i, "initialises an mbarrier with count " + number(count));
    shared_owner(w, i, address).mbarriers[shared_offset(address)] = {count, count, 0, 0};
  }
}

void mbarrier_invalidate(Warp& w, const Op& o, u32 m) {
  for (int i = 0; i < kLanes; ++i) {
    if (m >> i & 1u) shared_owner(w, i, address32(w, o, i)).mbarriers.erase(shared_offset(address32(w, o, i)));
  }
}

// o.type: 1 where it expects bytes (o.c); o.b: row of the count; o.vec: 1 where it arrives
void mbarrier_arrive(Warp& w, const Op& o, u32 m) {
  for (int i = 0; i < kLanes; ++i) {
    if (!(m >> i & 1u)) continue;
    MBarrier& b = mbarrier_at(w, i, address32(w, o, i));
    if (o.type) b.tx += w.row<u32>(o.c)[i];
    if (o.vec) {
      const u32 count = w.row<u32>(o.b)[i];
      if (o.imm) w.row<u64>(o.d)[i] = b.phase;
      if (count > b.pending)
        violation(w, i,
                  "arrives at an mbarrier " + number(count) + " times, which expects " + number(b.pending) + " more");
      b.pending -= count;
    }
    ++w.cluster->progress;
    advance(*w.cluster, b);
  }
}

// o.type: by parity; o.b: parity or state; o.d: predicate; o.vec: try_wait, which lets others run
void mbarrier_wait(Warp& w, const Op& o, u32 m) {
  u32 done = 0;
  for (int i = 0; i < kLanes; ++i) {
    if (!(m >> i & 1u)) continue;
    const MBarrier& b = mbarrier_at(w, i, address32(w, o, i));
    const bool complete = o.type ? (b.phase & 1) != (w.row<u32>(o.b)[i] & 1u) : b.phase != w.row<u64>(o.b)[i];
    done |= static_cast<u32>(complete) << i;
  }
  u32& p = w.predicates[o.d];
  p = (p & ~m) | done;
  if (done != m) w.yielded = true;
}

void map_address(Warp& w, const Op& o, u32 m) {
  alignas(64) u32 t[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    const u32 rank = w.row<u32>(o.b)[i];
    if ((m >> i & 1u) && rank >= w.cluster->ctas.size())
      violation(w, i,
                "maps an address to block " + number(rank) + " of a cluster of " + number(w.cluster->ctas.size()));
    t[i] = remote_address(rank, shared_offset(w.row<u32>(o.a)[i]));
  }
  put(w.row<u32>(o.d), t, m);
}

void fence_async(Warp& w, const Op&, u32) {
  const u8 mine = static_cast<u8>(2 + w.id);
  for (Cta& cta : w.cluster->ctas) {
    for (u8& s : cta.shared_shadow) s = s == mine ? 1 : s;
  }
}

}  // namespace

void complete_tx(Warp& w, int lane, u32 address, u64 bytes) {
  MBarrier& b = mbarrier_at(w, lane, address);
  b.tx -= static_cast<i64>(bytes);
  advance(*w.cluster, b);
}

bool decode_mbarrier(Decoder& d, const Instruction& in, Op& op) {
  const std::string& name = in.parts[0];
  const auto& o = in.operands;
  if (name == "fence") {
    op.cls = Class::kBarrier;
    op.run = fence_async;
    return true;
  }
  if (name == "mapa") {
    if (in.parts.back() != "u32") return false;
    op.cls = Class::kInteger;
    op.d = d.destination(o[0]), op.a = d.source(o[1], 32), op.b = d.source(o[2], 32);
    op.run = map_address;
    return true;
  }
  if (name == "mbarrier") {
    op.cls = Class::kMbarrier;
    const std::string& what = in.parts[1];
    if (what == "init") {
      d.address(o[0], op);
      op.b = d.source(o[1], 32);
      op.run = mbarrier_init;
      return true;
    }
    if (what == "inval") {
      d.address(o[0], op);
      op.run = mbarrier_invalidate;
      return true;
    }
    if (what == "arrive") {
      if (in.has("noComplete")) return false;
      size_t at = 0;
      if (o[0].kind != Operand::kAddress) {
        op.imm = o[0].kind == Operand::kRegister;
        if (op.imm) op.d = d.destination(o[0]);
        at = 1;
      }
      d.address(o[at], op);
      op.vec = 1;
      const Operand one = [] {
        Operand x;
        x.kind = Operand::kImmediate;
        x.value = 1;
        return x;
      }();
      op.b = d.source(one, 32);
      if (in.has("expect_tx")) {
        op.type = 1;
        op.c = d.source(o[at + 1], 32);
      } else if (o.size() > at + 1) {
        op.b = d.source(o[at + 1], 32);
      }
      op.run = mbarrier_arrive;
      return true;
    }
    if (what == "expect_tx") {
      d.address(o[0], op);
      op.vec = 0, op.type = 1, op.c = d.source(o[1], 32), op.b = op.c;
      op.run = mbarrier_arrive;
      return true;
    }
    if (what == "try_wait" || what == "test_wait") {
      op.flow = Flow::kPoll;
      op.d = d.predicate(o[0]);
      d.address(o[1], op);
      op.type = in.has("parity");
      op.b = d.source(o[2], op.type ? 32 : 64);
      op.run = mbarrier_wait;
      return true;
    }
    return false;
  }
  return false;
}

}  // namespace emu
