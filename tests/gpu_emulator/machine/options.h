// What the environment, or gpu_emulator.h, sets.
#pragma once

#include "ptx/numeric.h"

namespace emu {

// The environment's, until set() gives others.
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

}  // namespace emu
