// What executes kernels: warps, blocks and clusters, and a launch of them.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "machine/kernel.h"
#include "memory/memory.h"

namespace emu {

// A part of a warp's lanes that are at the same instruction.
struct Split {
  int pc;
  u32 mask;
  bool parked = false;  // waits for other lanes at a .sync instruction
  u32 members = 0;      // of that instruction
  bool waited = false;  // polled in vain in this turn
};

enum class State : u8 { kReady, kBarrier, kClusterBarrier, kDone };

struct Cta;
struct Cluster;
struct Launch;

// A wgmma operation in flight: what it was given; shared memory and accumulators are read when it is done.
struct PendingMma {
  const Op* op;
  u64 desc_a, desc_b;
  bool scale_d;
  std::array<u32, kLanes> metadata;
  std::vector<u32> a_registers;  // lanes of A from registers
  int pc;
};

struct Warp {
  u8* registers = nullptr;
  u32* predicates = nullptr;
  Cta* cta = nullptr;
  Cluster* cluster = nullptr;
  const Launch* launch = nullptr;
  const Kernel* kernel = nullptr;
  Stats* stats = nullptr;
  int id = 0;  // in the block
  u32 live = 0;
  State state = State::kReady;
  bool yielded = false, blocked = false;
  std::vector<Split> splits;
  int pc = 0;             // of the operation that runs, for messages
  std::vector<u8> local;  // local_bytes for each lane
  u32 barrier_id = 0;
  u64 cluster_phase = 0;    // of the barrier it arrived at
  u32 cluster_arrived = 0;  // lanes that arrived in the current phase
  u64 pending_mmas = 0;
  std::vector<u8> register_store;
  std::vector<u32> predicate_store;

  // cp.async: copies that are not yet visible, by group; the last is open
  struct Copy {
    u32 lane, shared, bytes, fill;
    u64 global;
  };
  std::vector<std::vector<Copy>> copy_groups;
  // wgmma: groups of operations not yet done, the last one open; how many were committed and done
  std::deque<std::vector<PendingMma>> mma_groups;
  u64 mma_committed = 0, mma_finished = 0, mma_waited = 0;
  // bulk stores, for each lane: what is left to do of the open group and of each committed one
  std::vector<std::shared_ptr<int>> bulk_open;
  std::vector<std::vector<std::shared_ptr<int>>> bulk_groups;
  bool accumulators_dirty = false;  // written by other instructions since the last wgmma.fence

  template <typename T>
  T* row(u32 offset) const {
    return reinterpret_cast<T*>(registers + offset);
  }
  u32 thread(int lane) const { return static_cast<u32>(id * kLanes + lane); }
};

struct MBarrier {
  u32 count = 0, pending = 0;
  i64 tx = 0;
  u64 phase = 0;
};

// An operand tile of a matrix instruction, already converted; good as long as shared memory is unchanged.
struct Tile {
  u64 descriptor = 0, epoch = 0;
  const Op* op = nullptr;
  std::vector<u32> values;  // fp32 or s32, [k][n]
};

// Of bar, by its number.
struct NamedBarrier {
  u32 arrived = 0, expected = 0;
  std::vector<Warp*> waiting;
};

struct Cta {
  u32 index[3] = {};
  u32 rank = 0;  // in the cluster
  Cluster* cluster = nullptr;
  std::vector<u8> shared;  // static, then dynamic
  // 0: never written; 1: written and visible to all; 2 + w: written by warp w, which has not executed
  // fence.proxy.async since
  std::vector<u8> shared_shadow;
  std::vector<u32> race_writer, race_reader;  // by 4 bytes: interval << 11 | thread + 1
  u32 interval = 1;                           // between barriers
  u64 shared_epoch = 0;                       // changes whenever shared memory does
  std::vector<Warp> warps;
  std::array<NamedBarrier, 16> barriers;
  std::unordered_map<u32, MBarrier> mbarriers;  // by offset in shared memory
  std::array<Tile, 8> tiles;
  u32 next_tile = 0;
};

// A bulk copy on its way.
struct Event {
  u64 due;
  std::function<void()> land;
};

struct Cluster {
  std::vector<Cta> ctas;
  u64 turn = 0;
  u64 progress = 0;  // changes whenever something happened that a waiting warp may wait for
  std::deque<Event> events;
  u32 barrier_arrived = 0;
  u64 barrier_phase = 0;
  const Launch* launch = nullptr;
};

struct Dim3 {
  u32 x = 1, y = 1, z = 1;
  u64 count() const { return static_cast<u64>(x) * y * z; }
};

struct Launch {
  const Kernel* kernel = nullptr;
  Dim3 grid, block, cluster;
  u32 dynamic_shared = 0;
  Memory* memory = nullptr;
  int sm_count = 132;
  u64 serial = 0;
};

// A violation: the launch stops, and the next synchronisation reports an error.
struct Violation : std::runtime_error {
  using std::runtime_error::runtime_error;
};
std::string hex(u64 v);
[[noreturn]] void violation(const Warp& w, int lane, const std::string& what);

// Runs one warp until it waits for something, yields, ends, or has run `budget` operations.
void run_warp(Warp& w, u64 budget);

void run_launch(const Launch& launch, Stats& stats);

}  // namespace emu
