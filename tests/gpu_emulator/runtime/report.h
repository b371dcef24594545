// What is known of a launch afterwards: a line of JSON in the file that GPU_EMULATOR_REPORT names, and the counts that
// gpu_emulator.h returns.
#pragma once

#include "machine/machine.h"

namespace emu {

void report_launch(const Launch& launch, const Stats& stats, const Footprint& footprint, double seconds,
                   const std::string& error);
// Keeps what gpu_emulator::last_launch() returns.
void keep_counts(const Launch& launch, const Stats& stats, const Footprint& footprint, const std::string& violation);
std::string demangle(const std::string& name);
// At exit: totals on stderr where GPU_EMULATOR_VERBOSE is set.
void report_totals();

}  // namespace emu
