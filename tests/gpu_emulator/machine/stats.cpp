// Sums of counts, and the names of the classes.
#include "machine/stats.h"

namespace emu {

const char* describe(Class c) {
  static const char* const names[] = {
      "integer", "fp32",     "fp64",        "fp16",         "convert",     "move",         "predicate", "control",
      "shuffle", "barrier",  "global_load", "global_store", "shared_load", "shared_store", "local",     "param",
      "atomic",  "cp_async", "matrix",      "mbarrier",     "tma",         "other"};
  return names[static_cast<int>(c)];
}

void Stats::add(const Stats& other) {
  if (ops.size() < other.ops.size()) ops.resize(other.ops.size());
  for (size_t i = 0; i < other.ops.size(); ++i) {
    ops[i].executed += other.ops[i].executed;
    ops[i].lanes += other.ops[i].lanes;
  }
  auto memory = [](MemoryStats& a, const MemoryStats& b) {
    a.requests += b.requests, a.sectors += b.sectors, a.bytes += b.bytes;
  };
  auto shared = [](SharedStats& a, const SharedStats& b) {
    a.requests += b.requests, a.wavefronts += b.wavefronts, a.ideal += b.ideal;
  };
  memory(global_load, other.global_load), memory(global_store, other.global_store);
  shared(shared_load, other.shared_load), shared(shared_store, other.shared_store);
  shared(ldmatrix, other.ldmatrix), shared(stmatrix, other.stmatrix);
  local_bytes += other.local_bytes, local_requests += other.local_requests;
  tma_load_bytes += other.tma_load_bytes, tma_store_bytes += other.tma_store_bytes;
  tma_loads += other.tma_loads, tma_stores += other.tma_stores, cp_async_bytes += other.cp_async_bytes;
  wgmma_serialised += other.wgmma_serialised, failed_polls += other.failed_polls, atomics += other.atomics;
  uninitialised_ldmatrix += other.uninitialised_ldmatrix, disordered_metadata += other.disordered_metadata;
  for (const auto& [k, v] : other.in_flight) in_flight[k] += v;
}

}  // namespace emu
