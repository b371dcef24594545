// What a program that is linked to the emulated GPU can set and ask. A program that only loads it as its libcudart sets
// the same through the environment (README.md). Not for several threads at once.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace gpu_emulator {

// GPU_EMULATOR_* in the environment gives the first values.
struct Settings {
  int async_delay = 7;       // mean of the scheduler's turns until a bulk load lands; 0: at once
  bool lazy_wgmma = true;    // wgmma reads and writes at its wait, not where it stands
  bool check_races = false;  // on shared memory, between barriers
  uint32_t shuffle = 0;      // not 0: the seed of a pseudo-random order of the warps
};

struct GlobalCounts {
  uint64_t requests = 0;        // of warps
  uint64_t bytes = 0;           // asked for
  uint64_t sectors = 0;         // of 32 bytes
  uint64_t distinct_bytes = 0;  // touched, also by bulk copies
};

// What one launch did. Instructions are PTX.
struct LaunchCounts {
  std::string kernel;     // demangled
  std::string violation;  // empty where there was none
  uint64_t thread_instructions = 0;
  GlobalCounts global_load, global_store;  // by threads, cp.async included; not by bulk copies
  uint64_t bulk_load_bytes = 0, bulk_store_bytes = 0;
  // How often wgmma.wait_group was executed, by what it was asked and found: "wait_group 1, 2 in flight" is
  // `wgmma.wait_group 1` where two groups were committed and not waited for. Counted by warps.
  std::map<std::string, uint64_t> wgmma_waits;
};

Settings settings();
// From the next launch on.
void set_settings(const Settings& settings);

// The launch before this call, of a graph too; no kernel was launched: an empty one. What a launch stopped by a
// violation had counted until then is there too.
LaunchCounts last_launch();

// How many launches stopped at a violation since the last call; those do not fail the process any more
// (GPU_EMULATOR_STRICT). The error is still pending: the next synchronisation returns it.
uint64_t take_violations();

}  // namespace gpu_emulator
