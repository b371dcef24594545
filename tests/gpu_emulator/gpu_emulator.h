// What a program that is linked to the emulated GPU can set and ask. A program that only loads it as its libcudart sets
// the same through the environment (README.md).
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
  uint64_t distinct_bytes = 0;  // touched
};

// What one launch did. Instructions are PTX.
struct LaunchCounts {
  std::string kernel;     // demangled
  std::string violation;  // empty where there was none
  uint64_t thread_instructions = 0;
  GlobalCounts global_load, global_store;  // by threads, not by bulk copies
  uint64_t bulk_load_bytes = 0, bulk_store_bytes = 0;
  std::map<std::string, uint64_t> wgmma_waits;  // "groups in flight at a wait -> groups left": how often
};

Settings settings();
void set_settings(const Settings& settings);

// The launch before this call; no kernel was launched: an empty one.
LaunchCounts last_launch();

// How many launches stopped at a violation since the last call; those do not fail the process any more.
uint64_t take_violations();

}  // namespace gpu_emulator
