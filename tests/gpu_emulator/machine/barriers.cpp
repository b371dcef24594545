// bar and barrier.cluster: who is waited for, and what an arrival must not do.
#include "machine/barriers.h"

namespace emu {
namespace {

u32 live_lanes(const Cta& cta) {
  u32 n = 0;
  for (const Warp& w : cta.warps) n += static_cast<u32>(__builtin_popcount(w.live));
  return n;
}

void release_barrier(Cta& cta, NamedBarrier& b) {
  for (Warp* w : b.waiting) {
    w->state = State::kReady;
    w->splits[0].pc += 1;
  }
  b = {};
  ++cta.interval;
  cta.cluster->progress++;
}

void check_barriers(Cta& cta) {
  for (NamedBarrier& b : cta.barriers) {
    if (b.arrived == 0) continue;
    const u32 expected = b.expected ? b.expected : live_lanes(cta);
    if (b.arrived >= expected) release_barrier(cta, b);
  }
}

void check_cluster_barrier(Cluster& cluster) {
  u32 live = 0;
  for (const Cta& cta : cluster.ctas) live += live_lanes(cta);
  if (cluster.barrier_arrived == 0 || cluster.barrier_arrived < live) return;
  cluster.barrier_arrived = 0;
  ++cluster.barrier_phase;
  ++cluster.progress;
  for (Cta& cta : cluster.ctas) {
    ++cta.interval;
    for (Warp& w : cta.warps) {
      w.cluster_arrived = 0;
      if (w.state == State::kClusterBarrier) w.state = State::kReady;
    }
  }
}

}  // namespace

void exit_lanes(Warp& w, u32 m) {
  const u32 left = static_cast<u32>(__builtin_popcount(w.cluster_arrived & m));
  w.cluster->barrier_arrived -= left;
  w.cluster_arrived &= ~m;
  w.live &= ~m;
  ++w.cluster->progress;
  if (w.live == 0) {
    w.state = State::kDone;
    if (w.pending_mmas) violation(w, 0, "exits with wgmma operations that it never waited for");
  }
  check_barriers(*w.cta);
  check_cluster_barrier(*w.cluster);
}

void arrive_at_barrier(Warp& w, const Op& op, u32 m, Split& split) {
  const u32 id = w.row<u32>(op.a)[__builtin_ctz(m)];
  if (id >= 16) violation(w, 0, "uses barrier " + std::to_string(id));
  NamedBarrier& b = w.cta->barriers[id];
  const u32 count = op.flags & 1 ? w.row<u32>(op.b)[__builtin_ctz(m)] : 0;
  if (count % 32) violation(w, 0, "names a number of threads at a barrier that is no multiple of 32");
  if (b.arrived && b.expected != count)
    violation(w, 0,
              "names " + std::to_string(count) + " threads at barrier " + std::to_string(id) + ", another warp " +
                  std::to_string(b.expected));
  b.expected = count;
  b.arrived += count ? 32 : static_cast<u32>(__builtin_popcount(m));
  const bool arrive_only = op.flags & 2;
  if (!arrive_only) {
    w.state = State::kBarrier;
    w.barrier_id = id;
    b.waiting.push_back(&w);
    if (w.splits.size() != 1) violation(w, 0, "waits at a barrier with only some of its lanes");
  } else {
    split.pc += 1;
  }
  const u32 expected = count ? count : live_lanes(*w.cta);
  if (b.arrived > expected) violation(w, 0, "is one too many at barrier " + std::to_string(id));
  if (b.arrived == expected) release_barrier(*w.cta, b);
}

void arrive_at_cluster_barrier(Warp& w, u32 m) {
  if (w.cluster_arrived & m) violation(w, 0, "arrives twice at the cluster's barrier");
  w.cluster_phase = w.cluster->barrier_phase;
  w.cluster_arrived |= m;
  w.cluster->barrier_arrived += static_cast<u32>(__builtin_popcount(m));
  check_cluster_barrier(*w.cluster);
}

}  // namespace emu
