// The lanes of one warp: where they diverge, how they come together again, and what they execute.
#include <climits>
#include <cstdio>

#include "machine/barriers.h"

namespace emu {

std::string hex(u64 v) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(v));
  return text;
}

void violation(const Warp& w, int lane, const std::string& what) {
  std::string where = "kernel " + w.kernel->name.substr(0, 150) + ", block (" + std::to_string(w.cta->index[0]) + ", " +
                      std::to_string(w.cta->index[1]) + ", " + std::to_string(w.cta->index[2]) + "), thread " +
                      std::to_string(w.thread(lane));
  if (w.pc < static_cast<int>(w.kernel->function->code.size())) {
    where += ", instruction " + std::to_string(w.pc) + " '" + w.kernel->function->code[w.pc].opcode + "' (line " +
             std::to_string(w.kernel->function->code[w.pc].line) + " of its body)";
  }
  throw Violation(what + "\n  in " + where);
}

namespace {

u32 member_mask(const Warp& w, const Op& op, u32 m) {
  if (op.members < 0) return w.live;
  const u32* row = w.row<u32>(static_cast<u32>(op.members));
  const u32 members = row[__builtin_ctz(m)];
  return members;
}

}  // namespace

void run_warp(Warp& w, u64 budget) {
  const Op* const ops = w.kernel->ops.data();
  Counters* const counters = w.stats->ops.data();
  for (Split& s : w.splits) s.waited = false;
  for (;;) {
    if (w.splits.empty()) return;
    // The split with the least program counter of those that can run.
    int at = -1;
    for (int i = 0; i < static_cast<int>(w.splits.size()); ++i) {
      const Split& s = w.splits[i];
      if (!s.parked && !s.waited && (at < 0 || s.pc < w.splits[at].pc)) at = i;
    }
    if (at < 0) {
      for (const Split& s : w.splits) {
        if (!s.parked) return;  // those that polled in vain
      }
      // All are parked: lanes that ended may have been waited for.
      bool freed = false;
      for (Split& s : w.splits) {
        if ((s.members & w.live & ~s.mask) == 0) s.parked = false, freed = true;
      }
      if (freed) continue;
      w.pc = w.splits[0].pc;
      violation(w, __builtin_ctz(w.splits[0].mask), "waits at a .sync instruction for lanes that wait elsewhere");
    }
    // Splits at the same place become one.
    for (int i = 0; i < static_cast<int>(w.splits.size()); ++i) {
      if (i == at || w.splits[i].pc != w.splits[at].pc || w.splits[i].parked) continue;
      w.splits[at].mask |= w.splits[i].mask;
      w.splits[at].waited &= w.splits[i].waited;
      w.splits.erase(w.splits.begin() + i);
      if (i < at) --at;
      --i;
    }
    int limit = INT_MAX;
    for (int i = 0; i < static_cast<int>(w.splits.size()); ++i) {
      if (i != at && !w.splits[i].parked && w.splits[i].pc < limit) limit = w.splits[i].pc;
    }
    if (limit <= w.splits[at].pc) limit = INT_MAX;  // a waiting split may be behind
    int pc = w.splits[at].pc;
    u32 mask = w.splits[at].mask;

    for (;;) {
      const Op& op = ops[pc];
      u32 m = mask;
      if (op.guard >= 0) m &= op.guard_negated ? ~w.predicates[op.guard] : w.predicates[op.guard];
      counters[pc].executed += 1;
      counters[pc].lanes += static_cast<u64>(__builtin_popcount(m));
      bool leave = false;
      switch (op.flow) {
        case Flow::kNormal:
          w.pc = pc;
          if (m) op.run(w, op, m);
          ++pc;
          break;
        case Flow::kAccumulator:
          w.pc = pc;
          if (w.pending_mmas) {
            w.stats->wgmma_serialised += 1;
            w.kernel->finish_mmas(w);
          }
          w.accumulators_dirty = true;
          if (m) op.run(w, op, m);
          ++pc;
          break;
        case Flow::kBranch:
          if (m == mask) {
            if (op.target <= pc && --budget == 0) leave = true, w.cluster->progress++;
            pc = op.target;
          } else if (m == 0) {
            ++pc;
          } else {
            w.splits[at].pc = pc + 1;
            w.splits[at].mask = mask & ~m;
            w.splits.push_back({op.target, m});
            if (op.target <= pc && budget > 1) --budget;
            goto reselect;
          }
          break;
        case Flow::kExit: {
          w.splits[at].mask = mask & ~m;
          w.splits[at].pc = pc + 1;
          if (w.splits[at].mask == 0) w.splits.erase(w.splits.begin() + at);
          if (m) {
            w.pc = pc;
            exit_lanes(w, m);
          }
          if (w.state == State::kDone) return;
          goto reselect;
        }
        case Flow::kConverge:
        case Flow::kWarpBarrier:
        case Flow::kBarrier:
        case Flow::kClusterArrive:
        case Flow::kClusterWait: {
          w.pc = pc;
          if (m != mask) {
            if (m == 0) {
              ++pc;
              break;
            }
            w.splits[at].pc = pc + 1;
            w.splits[at].mask = mask & ~m;
            w.splits.push_back({pc, m});
            at = static_cast<int>(w.splits.size()) - 1;
            mask = m;
          }
          const u32 members = member_mask(w, op, m);
          if (m & ~members)
            violation(w, __builtin_ctz(m & ~members),
                      "is not in the member mask of a .sync instruction that it executes");
          if (members & w.live & ~m) {
            // Are the others here already?
            u32 here = m;
            for (const Split& s : w.splits) {
              const bool same = s.pc == pc || (op.flow == Flow::kWarpBarrier && ops[s.pc].flow == Flow::kWarpBarrier &&
                                               s.members == members);
              if (s.parked && same) here |= s.mask;
            }
            w.splits[at].pc = pc;
            w.splits[at].members = members;
            if (members & w.live & ~here) {
              w.splits[at].parked = true;
              goto reselect;
            }
            if (op.flow == Flow::kWarpBarrier) {
              for (Split& s : w.splits) {
                if (s.parked && ops[s.pc].flow == Flow::kWarpBarrier && s.members == members)
                  s.parked = false, s.pc += 1;
              }
              w.splits[at].pc = pc + 1;
              goto reselect;
            }
            for (int i = static_cast<int>(w.splits.size()); i-- > 0;) {
              if (i == at || w.splits[i].pc != pc || !w.splits[i].parked) continue;
              w.splits[at].mask |= w.splits[i].mask;
              w.splits.erase(w.splits.begin() + i);
              if (i < at) --at;
            }
            mask = m = w.splits[at].mask;
          }
          if (op.flow == Flow::kBarrier) {
            w.splits[at].pc = pc;
            arrive_at_barrier(w, op, m, w.splits[at]);
            if (w.state != State::kReady) return;
            pc = w.splits[at].pc;
            break;
          }
          if (op.flow == Flow::kClusterArrive) {
            ++pc;
            w.splits[at].pc = pc;
            arrive_at_cluster_barrier(w, m);
            break;
          }
          if (op.flow == Flow::kClusterWait) {
            ++pc;
            if (w.cluster->barrier_phase == w.cluster_phase) {
              w.splits[at].pc = pc;
              w.state = State::kClusterBarrier;
              return;
            }
            break;
          }
          w.blocked = false;
          op.run(w, op, m);
          if (w.blocked) {
            w.splits[at].pc = pc;
            w.splits[at].waited = true;
            goto reselect;
          }
          ++pc;
          break;
        }
        case Flow::kPoll:
          w.pc = pc;
          w.yielded = false;
          if (m) op.run(w, op, m);
          ++pc;
          if (w.yielded) {
            w.stats->failed_polls += 1;
            w.splits[at].pc = pc;
            w.splits[at].waited = true;
            goto reselect;
          }
          break;
        case Flow::kBlock:
          w.pc = pc;
          w.blocked = false;
          if (m) op.run(w, op, m);
          if (w.blocked) {
            w.splits[at].pc = pc;
            w.splits[at].waited = true;
            goto reselect;
          }
          ++pc;
          break;
      }
      if (leave) {
        w.splits[at].pc = pc;
        return;
      }
      if (pc >= limit) {
        w.splits[at].pc = pc;
        break;
      }
    }
  reselect:;
  }
}

}  // namespace emu
