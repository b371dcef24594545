// Barriers of blocks and clusters, and lanes that end: barriers do not wait for those.
#pragma once

#include "machine/machine.h"

namespace emu {

void exit_lanes(Warp& w, u32 m);
// At bar: the warp's state says whether it waits; split.pc is at the instruction, or after it where the warp goes on.
void arrive_at_barrier(Warp& w, const Op& op, u32 m, Split& split);
void arrive_at_cluster_barrier(Warp& w, u32 m);

}  // namespace emu
