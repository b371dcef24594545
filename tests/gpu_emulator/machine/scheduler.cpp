// Runs a launch: the blocks of a cluster together, their warps in turn, one cluster after another.
#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <random>
#include <thread>

#include "machine/machine.h"
#include "machine/options.h"

namespace emu {
namespace {

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
  std::vector<std::thread> workers;
  for (int i = 1; i < threads; ++i) workers.emplace_back(work, i);
  work(0);
  for (std::thread& t : workers) t.join();
  for (const Stats& s : parts) stats.add(s);
  if (error) std::rethrow_exception(error);
}

}  // namespace emu
