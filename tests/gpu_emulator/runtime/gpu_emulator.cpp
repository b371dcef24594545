// The functions of gpu_emulator.h: settings, and the counts of the launch before.
#pragma GCC visibility push(default)
#include "gpu_emulator.h"
#pragma GCC visibility pop

#include "machine/options.h"
#include "runtime/report.h"
#include "runtime/runtime.h"

namespace emu {
namespace {

gpu_emulator::LaunchCounts& last() {
  static gpu_emulator::LaunchCounts counts;
  return counts;
}

gpu_emulator::GlobalCounts global_counts(const MemoryStats& stats, u64 distinct_bytes) {
  return {stats.requests, stats.bytes, stats.sectors, distinct_bytes};
}

}  // namespace

void keep_counts(const Launch& launch, const Stats& stats, const Footprint& footprint, const std::string& violation) {
  gpu_emulator::LaunchCounts c;
  c.kernel = launch.kernel->name;  // demangled only when it is asked for
  c.violation = violation;
  for (const Counters& op : stats.ops) c.thread_instructions += op.lanes;
  c.global_load = global_counts(stats.global_load, footprint.loaded);
  c.global_store = global_counts(stats.global_store, footprint.stored);
  c.bulk_load_bytes = stats.tma_load_bytes, c.bulk_store_bytes = stats.tma_store_bytes;
  c.wgmma_waits = stats.in_flight;
  last() = std::move(c);
}

}  // namespace emu

namespace gpu_emulator {

Settings settings() {
  const emu::Options& o = emu::Options::get();
  return {o.async_delay, o.lazy_wgmma, o.check_races, o.shuffle};
}

void set_settings(const Settings& settings) {
  emu::Options o = emu::Options::get();
  o.async_delay = settings.async_delay;
  o.lazy_wgmma = settings.lazy_wgmma;
  o.check_races = settings.check_races;
  o.shuffle = settings.shuffle;
  emu::Options::set(o);
}

LaunchCounts last_launch() {
  LaunchCounts counts = emu::last();
  counts.kernel = emu::demangle(counts.kernel);
  return counts;
}

uint64_t take_violations() { return emu::take_violations(); }

}  // namespace gpu_emulator
