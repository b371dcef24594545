// One JSON line for every launch, appended to the file that GPU_EMULATOR_REPORT names.
#pragma once

#include "machine/machine.h"

namespace emu {

void report_launch(const Launch& launch, const Stats& stats, const Footprint& footprint, double seconds,
                   const std::string& error);
std::string demangle(const std::string& name);
// At exit: totals on stderr where GPU_EMULATOR_VERBOSE is set.
void report_totals();

}  // namespace emu
