// What is executed (decoded kernels) and on what (warps, blocks, clusters).
#pragma once

#include <algorithm>
#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "memory/memory.h"
#include "ptx/ptx.h"

namespace emu {

constexpr int kLanes = 32;
constexpr u32 kAll = 0xffffffffu;
constexpr u32 kRowBytes = kLanes * 4;

struct Warp;
struct Op;
struct Launch;
using Handler = void (*)(Warp&, const Op&, u32 active);

// Classes of instructions in the report.
enum class Class : u8 {
  kInteger,
  kFloat,
  kDouble,
  kHalf,
  kConvert,
  kMove,
  kPredicate,
  kControl,
  kShuffle,
  kBarrier,
  kGlobalLoad,
  kGlobalStore,
  kSharedLoad,
  kSharedStore,
  kLocal,
  kParam,
  kAtomic,
  kAsyncCopy,
  kMatrix,
  kMbarrier,
  kTma,
  kOther,
  kCount
};
const char* describe(Class c);

// How the warp's loop treats an operation.
enum class Flow : u8 {
  kNormal,       // runs `run` on the active lanes
  kAccumulator,  // the same, but first finishes wgmma operations in flight, whose registers it names
  kBranch,
  kExit,
  kConverge,  // .sync with a member mask: waits for those lanes, then runs `run`
  kWarpBarrier,
  kBarrier,  // bar / barrier.cta
  kClusterArrive,
  kClusterWait,
  kPoll,   // runs `run`, then lets other warps run where it asked for that
  kBlock,  // `run` sets w.blocked when it must be tried again
};

struct WideOperand {  // what does not fit into the fixed fields
  std::vector<u32> rows;
  std::vector<u32> rows2, rows3, rows4;
  std::vector<int> kinds;
  std::string text;
  Operand operand;
  u64 a = 0, b = 0, c = 0, e = 0;
};

struct Op {
  Handler run = nullptr;
  u32 d = 0, a = 0, b = 0, c = 0;  // byte offsets of rows in the warp's registers, or numbers of predicates
  i16 guard = -1;
  bool guard_negated = false;
  Flow flow = Flow::kNormal;
  Class cls = Class::kOther;
  u8 type = 0, vec = 1, space = 0, flags = 0;
  int target = -1;
  int members = -1;  // row of the member mask of a .sync instruction; -1: all lanes that live
  i64 offset = 0;    // of an address, or any other number
  u64 imm = 0;
  std::unique_ptr<WideOperand> wide;
  const Instruction* source = nullptr;
};

struct Kernel {
  std::string name;
  std::unique_ptr<Function> function;
  std::vector<Op> ops;
  u32 register_bytes = 0;  // of a warp, constants included
  u32 constant_begin = 0;
  std::vector<u8> constants;  // broadcast rows, copied once into a warp's registers
  u32 predicates = 0;
  u32 local_bytes = 0;
  u32 static_shared = 0;
  bool uses_dynamic_shared = false;
  std::unique_ptr<u8[]> parameter_store;
  u8* parameters = nullptr;  // where every launch's arguments are put, 128-byte aligned
};

// A part of a warp's lanes that are at the same instruction.
struct Split {
  int pc;
  u32 mask;
  bool parked = false;  // waits for other lanes at a .sync instruction
  u32 members = 0;      // of that instruction
  bool waited = false;  // polled in vain in this turn
};

enum class State : u8 { kReady, kBarrier, kClusterBarrier, kBlocked, kDone };

struct Cta;
struct Cluster;

struct Counters {
  u64 executed = 0, lanes = 0;
};

struct MemoryStats {
  u64 requests = 0, sectors = 0, bytes = 0, ideal_sectors = 0;
};

struct SharedStats {
  u64 requests = 0, wavefronts = 0, ideal = 0;
};

// Counted by one worker while it runs its share of a launch.
struct Stats {
  std::vector<Counters> ops;
  MemoryStats global_load, global_store;
  SharedStats shared_load, shared_store, ldmatrix, stmatrix;
  u64 local_bytes = 0, local_requests = 0;
  u64 tma_load_bytes = 0, tma_store_bytes = 0, tma_loads = 0, tma_stores = 0, cp_async_bytes = 0;
  std::map<std::string, u64> in_flight;  // "wait_group N, k in flight" -> times
  u64 wgmma_serialised = 0;
  u64 failed_polls = 0, atomics = 0;
  // Tolerated, because CUTLASS leaves rows beyond a tensor as they are: they reach no result.
  u64 uninitialised_ldmatrix = 0, disordered_metadata = 0;
  void add(const Stats& other);
};

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
  u32 barrier_lanes = 0;
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
  // bulk stores: for each lane, groups still reading or writing
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

struct NamedBarrier {
  u32 arrived = 0, expected = 0;
  u32 reduce_or = 0;
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
  std::vector<u32> race_writer, race_reader;  // by 4 bytes: interval << 12 | thread + 1
  u32 interval = 1;
  u64 shared_epoch = 0;  // changes whenever shared memory does
  std::vector<Warp> warps;
  std::array<NamedBarrier, 16> barriers;
  std::unordered_map<u32, MBarrier> mbarriers;  // by offset in shared memory
  std::array<Tile, 8> tiles;
  u32 next_tile = 0;
};

struct Event {
  u64 due;
  std::function<void()> land;
};

struct Cluster {
  u32 index[3] = {};
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
[[noreturn]] void violation(const Warp& w, int lane, const std::string& what);

void run_launch(const Launch& launch, Stats& stats);
void finish_mmas(Warp& w);  // matrix.cpp

// Shared-memory addresses are offsets; those of another block of the cluster have its rank in bits 24 up.
inline u32 remote_address(u32 rank, u32 offset) { return (rank + 1) << 24 | offset; }
// Generic addresses: shared and local memory have windows that no host address lies in.
constexpr u32 kSharedReserved = 1024;
constexpr u64 kSharedWindow = u64{1} << 52;
constexpr u64 kLocalWindow = u64{2} << 52;

u8* shared_pointer(Warp& w, int lane, u32 address, u32 bytes, bool write, bool data = true, bool tolerant = false);
Cta& shared_owner(Warp& w, int lane, u32 address);
inline u32 shared_offset(u32 address) { return address & 0xffffffu; }

// Shared memory as the asynchronous proxy (TMA, wgmma) reads it: bounds, initialisation and fences are checked.
const u8* async_read(Warp& w, Cta& cta, u32 offset, u32 bytes, const char* what);
Allocation* find_allocation(Memory& memory, u64 address);

// Options: the environment's, until set() gives others.
struct Options {
  int async_delay;  // scheduler turns until asynchronous copies land
  bool lazy_wgmma;  // wgmma reads and writes at its wait
  bool check_uninitialised;
  bool check_races;
  bool poison_is_uninitialised;  // cudaMemset(0xff) of a whole allocation counts as "not written"
  int threads;
  u32 shuffle;  // not 0: warps run in a pseudo-random order and for random times
  static const Options& get();
  static void set(const Options& options);  // between launches
};

// decode.cpp
std::unique_ptr<Kernel> decode_kernel(const Module& module, const std::string& name,
                                      const std::function<u64(const std::string&)>& symbol_address);

}  // namespace emu

#include "machine/simd.h"
