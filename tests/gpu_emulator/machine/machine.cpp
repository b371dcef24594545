// Runs decoded kernels: lanes of a warp with divergence and reconvergence, warps and blocks of a cluster in turn.
#include "machine/machine.h"

#include <atomic>
#include <climits>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <random>
#include <thread>

namespace emu {

const char* describe(Class c) {
  static const char* const names[] = {
      "integer", "fp32",     "fp64",        "fp16",         "convert",     "move",         "predicate", "control",
      "shuffle", "barrier",  "global_load", "global_store", "shared_load", "shared_store", "local",     "param",
      "atomic",  "cp_async", "matrix",      "mbarrier",     "tma",         "other"};
  return names[static_cast<int>(c)];
}

namespace {
Options& current_options() {
  static Options options = [] {
    auto number = [](const char* name, int otherwise) {
      const char* text = std::getenv(name);
      return text && *text ? std::atoi(text) : otherwise;
    };
    Options o;
    o.async_delay = number("GPU_EMULATOR_ASYNC_DELAY", 7);
    o.lazy_wgmma = number("GPU_EMULATOR_LAZY_WGMMA", 1);
    o.check_uninitialised = number("GPU_EMULATOR_CHECK_UNINITIALISED", 1);
    o.check_races = number("GPU_EMULATOR_CHECK_RACES", 0);
    o.poison_is_uninitialised = number("GPU_EMULATOR_POISON", 1);
    o.threads = number("GPU_EMULATOR_THREADS", 1);
    o.shuffle = static_cast<u32>(number("GPU_EMULATOR_SHUFFLE", 0));
    return o;
  }();
  return options;
}
}  // namespace

const Options& Options::get() { return current_options(); }
void Options::set(const Options& options) { current_options() = options; }

void Stats::add(const Stats& other) {
  if (ops.size() < other.ops.size()) ops.resize(other.ops.size());
  for (size_t i = 0; i < other.ops.size(); ++i) {
    ops[i].executed += other.ops[i].executed;
    ops[i].lanes += other.ops[i].lanes;
  }
  auto memory = [](MemoryStats& a, const MemoryStats& b) {
    a.requests += b.requests, a.sectors += b.sectors, a.bytes += b.bytes, a.ideal_sectors += b.ideal_sectors;
  };
  auto shared = [](SharedStats& a, const SharedStats& b) {
    a.requests += b.requests, a.wavefronts += b.wavefronts, a.ideal += b.ideal;
  };
  memory(global_load, other.global_load), memory(global_store, other.global_store);
  shared(shared_load, other.shared_load), shared(shared_store, other.shared_store);
  shared(ldmatrix, other.ldmatrix), shared(stmatrix, other.stmatrix);
  local_bytes += other.local_bytes, local_requests += other.local_requests;
  tma_load_bytes += other.tma_load_bytes, tma_store_bytes += other.tma_store_bytes;
  tma_loads += other.tma_loads, tma_stores += other.tma_stores, cp_async_bytes += other.cp_async_bytes;
  wgmma_serialised += other.wgmma_serialised, failed_polls += other.failed_polls, atomics += other.atomics;
  uninitialised_ldmatrix += other.uninitialised_ldmatrix, disordered_metadata += other.disordered_metadata;
  for (const auto& [k, v] : other.in_flight) in_flight[k] += v;
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

u32 member_mask(const Warp& w, const Op& op, u32 m) {
  if (op.members < 0) return w.live;
  const u32* row = w.row<u32>(static_cast<u32>(op.members));
  const u32 members = row[__builtin_ctz(m)];
  return members;
}

// Runs one warp until it waits for something, yields, ends, or has run `budget` operations.
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
            finish_mmas(w);
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
            const u32 id = w.row<u32>(op.a)[__builtin_ctz(m)];
            if (id >= 16) violation(w, 0, "uses barrier " + std::to_string(id));
            NamedBarrier& b = w.cta->barriers[id];
            const u32 count = op.flags & 1 ? w.row<u32>(op.b)[__builtin_ctz(m)] : 0;
            if (count % 32) violation(w, 0, "names a number of threads at a barrier that is no multiple of 32");
            if (b.arrived && b.expected != count)
              violation(w, 0,
                        "names " + std::to_string(count) + " threads at barrier " + std::to_string(id) +
                            ", another warp " + std::to_string(b.expected));
            b.expected = count;
            b.arrived += count ? 32 : static_cast<u32>(__builtin_popcount(m));
            const bool arrive_only = op.flags & 2;
            w.splits[at].pc = pc;
            if (!arrive_only) {
              w.state = State::kBarrier;
              w.barrier_id = id;
              b.waiting.push_back(&w);
              if (w.splits.size() != 1) violation(w, 0, "waits at a barrier with only some of its lanes");
            } else {
              w.splits[at].pc = pc + 1;
            }
            const u32 expected = count ? count : live_lanes(*w.cta);
            if (b.arrived > expected) violation(w, 0, "is one too many at barrier " + std::to_string(id));
            if (b.arrived == expected) release_barrier(*w.cta, b);
            if (w.state != State::kReady) return;
            pc = w.splits[at].pc;
            break;
          }
          if (op.flow == Flow::kClusterArrive) {
            if (w.cluster_arrived & m) violation(w, 0, "arrives twice at the cluster's barrier");
            w.cluster_phase = w.cluster->barrier_phase;
            w.cluster_arrived |= m;
            w.cluster->barrier_arrived += static_cast<u32>(__builtin_popcount(m));
            ++pc;
            w.splits[at].pc = pc;
            check_cluster_barrier(*w.cluster);
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

void land_events(Cluster& c, bool force) {
  while (!c.events.empty() && (force || c.events.front().due <= c.turn)) {
    Event e = std::move(c.events.front());
    c.events.pop_front();
    if (e.due > c.turn) c.turn = e.due;
    e.land();
    ++c.progress;
    force = false;
  }
}

[[noreturn]] void deadlock(Cluster& c) {
  std::string text = "no warp can go on:";
  const Warp* first = nullptr;
  for (Cta& cta : c.ctas) {
    for (Warp& w : cta.warps) {
      if (w.state == State::kDone) continue;
      if (!first) first = &w;
      const int pc = w.splits.empty() ? 0 : w.splits[0].pc;
      text += "\n  block rank " + std::to_string(cta.rank) + " warp " + std::to_string(w.id) + " at instruction " +
              std::to_string(pc);
      if (pc < static_cast<int>(w.kernel->function->code.size()))
        text += " '" + w.kernel->function->code[pc].opcode + "'";
      text += w.state == State::kBarrier          ? " (barrier " + std::to_string(w.barrier_id) + ")"
              : w.state == State::kClusterBarrier ? " (cluster barrier)"
                                                  : " (polls)";
    }
  }
  violation(*first, 0, text);
}

// All blocks of a cluster together, warps in turn.
void run_cluster(Cluster& c) {
  std::vector<Warp*> warps;
  for (Cta& cta : c.ctas) {
    for (Warp& w : cta.warps) warps.push_back(&w);
  }
  std::minstd_rand random(Options::get().shuffle + c.ctas[0].index[0] + 1000 * c.ctas[0].index[1]);
  int idle = 0;
  for (;;) {
    const u64 before = c.progress;
    bool all_done = true;
    if (Options::get().shuffle) std::shuffle(warps.begin(), warps.end(), random);
    for (Warp* w : warps) {
      if (w->state == State::kDone) continue;
      all_done = false;
      if (w->state != State::kReady) continue;
      if (Options::get().shuffle && random() % 3 == 0) continue;
      run_warp(*w, Options::get().shuffle ? 1 + random() % 4 : 20000);
      ++c.turn;
      if (!c.events.empty()) land_events(c, false);
    }
    if (all_done) break;
    if (c.progress != before) {
      idle = 0;
    } else if (!c.events.empty()) {
      land_events(c, true);
    } else if (++idle > (Options::get().shuffle ? 5000 : 200)) {
      deadlock(c);
    }
  }
  while (!c.events.empty()) land_events(c, true);
}

void prepare(Cluster& c, const Launch& l, Stats& stats) {
  const u32 size = static_cast<u32>(l.cluster.count());
  const u32 threads = static_cast<u32>(l.block.count());
  const u32 warps = (threads + kLanes - 1) / kLanes;
  c.launch = &l;
  c.ctas.resize(size);
  const u32 shared = l.kernel->static_shared + l.dynamic_shared;
  for (u32 rank = 0; rank < size; ++rank) {
    Cta& cta = c.ctas[rank];
    cta.rank = rank;
    cta.cluster = &c;
    cta.shared.assign(shared, 0xff);  // NaN as fp16, bf16, fp32 and e4m3
    cta.shared_shadow.assign(shared, 0);
    if (Options::get().check_races) {
      cta.race_writer.assign(shared / 4 + 1, 0);
      cta.race_reader.assign(shared / 4 + 1, 0);
    }
    cta.warps.resize(warps);
    for (u32 i = 0; i < warps; ++i) {
      Warp& w = cta.warps[i];
      w.cta = &cta, w.cluster = &c, w.launch = &l, w.kernel = l.kernel, w.stats = &stats, w.id = static_cast<int>(i);
      w.register_store.assign(l.kernel->register_bytes + 64, 0xcd);
      w.registers = reinterpret_cast<u8*>((reinterpret_cast<u64>(w.register_store.data()) + 63) / 64 * 64);
      std::copy(l.kernel->constants.begin(), l.kernel->constants.end(), w.registers + l.kernel->constant_begin);
      w.predicate_store.assign(l.kernel->predicates + 1, 0);
      w.predicates = w.predicate_store.data();
      w.local.assign(static_cast<u64>(l.kernel->local_bytes) * kLanes, 0xcd);
    }
  }
}

void reset(Cluster& c, const u32 (&index)[3], bool first) {
  const Launch& l = *c.launch;
  const u32 threads = static_cast<u32>(l.block.count());
  c.events.clear();
  c.barrier_arrived = 0, c.barrier_phase = 0, c.progress = 0, c.turn = 0;
  for (Cta& cta : c.ctas) {
    const u32 r = cta.rank;
    cta.index[0] = index[0] * l.cluster.x + r % l.cluster.x;
    cta.index[1] = index[1] * l.cluster.y + r / l.cluster.x % l.cluster.y;
    cta.index[2] = index[2] * l.cluster.z + r / l.cluster.x / l.cluster.y;
    if (!first) std::fill(cta.shared.begin(), cta.shared.end(), 0xff);
    std::fill(cta.shared_shadow.begin(), cta.shared_shadow.end(), 0);
    std::fill(cta.race_writer.begin(), cta.race_writer.end(), 0);
    std::fill(cta.race_reader.begin(), cta.race_reader.end(), 0);
    cta.interval = 1;
    ++cta.shared_epoch;
    for (NamedBarrier& b : cta.barriers) b = {};
    cta.mbarriers.clear();
    for (Warp& w : cta.warps) {
      const u32 begin = static_cast<u32>(w.id) * kLanes;
      const u32 n = std::min<u32>(kLanes, threads - begin);
      w.live = n == kLanes ? kAll : (1u << n) - 1;
      w.state = State::kReady;
      w.splits.assign(1, {0, w.live});
      w.cluster_arrived = 0;
      w.pending_mmas = 0;
      w.copy_groups.assign(1, {});
      w.mma_groups.assign(1, {});
      w.mma_committed = w.mma_finished = w.mma_waited = 0;
      w.bulk_open.assign(kLanes, nullptr);
      w.accumulators_dirty = false;
      w.bulk_groups.assign(kLanes, {});
    }
  }
}

}  // namespace

void run_launch(const Launch& l, Stats& stats) {
  const Dim3 clusters{l.grid.x / l.cluster.x, l.grid.y / l.cluster.y, l.grid.z / l.cluster.z};
  const u64 total = clusters.count();
  const int threads = static_cast<int>(std::min<u64>(static_cast<u64>(std::max(1, Options::get().threads)), total));
  std::atomic<u64> next{0};
  std::vector<Stats> parts(threads);
  std::mutex mutex;
  std::exception_ptr error;
  auto work = [&](int index) {
    try {
      parts[index].ops.resize(l.kernel->ops.size());
      Cluster c;
      prepare(c, l, parts[index]);
      bool first = true;
      for (u64 n; (n = next++) < total;) {
        const u32 at[3] = {static_cast<u32>(n % clusters.x), static_cast<u32>(n / clusters.x % clusters.y),
                           static_cast<u32>(n / clusters.x / clusters.y)};
        reset(c, at, first);
        first = false;
        run_cluster(c);
      }
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex);
      if (!error) error = std::current_exception();
      next = total;
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; ++i) helpers.emplace_back(work, i);
  work(0);
  for (std::thread& t : helpers) t.join();
  for (const Stats& s : parts) stats.add(s);
  if (error) std::rethrow_exception(error);
}

}  // namespace emu
