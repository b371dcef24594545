// What gpu_emulator.h asks of the runtime.
#pragma once

#include "machine/machine.h"

namespace emu {

// Keeps what gpu_emulator::last_launch() returns.
void keep_counts(const Launch& launch, const Stats& stats, const Footprint& footprint, const std::string& violation);

// Launches that stopped at a violation since the last call; the process does not fail for those any more.
u64 take_violations();

}  // namespace emu
