// What a launch counts.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ptx/numeric.h"

namespace emu {

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

struct Counters {
  u64 executed = 0, lanes = 0;
};

struct MemoryStats {
  u64 requests = 0, sectors = 0, bytes = 0;
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

}  // namespace emu
