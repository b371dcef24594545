// The report's lines and totals.
#include "runtime/report.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>

#include "machine/shared_memory.h"

namespace emu {
namespace {

std::string quoted(const std::string& s) {
  std::string out = "\"";
  for (char c : s) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out + '"';
}

struct Totals {
  u64 launches = 0, instructions = 0, lane_instructions = 0;
  double seconds = 0;
} totals;

double ratio(u64 a, u64 b) { return b ? static_cast<double>(a) / static_cast<double>(b) : 0.0; }

}  // namespace

std::string demangle(const std::string& name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string result = status == 0 && text ? text : name;
  std::free(text);
  return result;
}

void report_launch(const Launch& l, const Stats& s, const Footprint& f, double seconds, const std::string& error) {
  u64 warps[static_cast<int>(Class::kCount)] = {}, lanes[static_cast<int>(Class::kCount)] = {};
  u64 all_warps = 0, all_lanes = 0;
  std::map<std::string, u64> matrix;  // multiplications by opcode, counted by warps
  for (size_t i = 0; i < s.ops.size(); ++i) {
    const int c = static_cast<int>(l.kernel->ops[i].cls);
    warps[c] += s.ops[i].executed, lanes[c] += s.ops[i].lanes;
    all_warps += s.ops[i].executed, all_lanes += s.ops[i].lanes;
    const Instruction* source = l.kernel->ops[i].source;
    if (s.ops[i].executed && source &&
        (source->parts[0] == "mma" || (source->parts[0] == "wgmma" && source->parts[1] == "mma_async"))) {
      matrix[source->opcode] += s.ops[i].executed;
    }
  }
  totals.launches += 1;
  totals.instructions += all_warps, totals.lane_instructions += all_lanes;
  totals.seconds += seconds;
  const char* path = std::getenv("GPU_EMULATOR_REPORT");
  if (!path || !*path) return;
  std::ostringstream o;
  o.precision(5);
  auto dim = [&](const char* name, const Dim3& d) {
    o << ",\"" << name << "\":[" << d.x << "," << d.y << "," << d.z << "]";
  };
  const std::string name = demangle(l.kernel->name);
  o << "{\"launch\":" << l.serial << ",\"kernel\":" << quoted(name);
  dim("grid", l.grid), dim("block", l.block), dim("cluster", l.cluster);
  o << ",\"static_shared\":" << l.kernel->static_shared - kSharedReserved << ",\"dynamic_shared\":" << l.dynamic_shared
    << ",\"local_bytes_per_thread\":" << l.kernel->local_bytes << ",\"seconds\":" << seconds;
  o << ",\"warp_instructions\":" << all_warps << ",\"thread_instructions\":" << all_lanes
    << ",\"thread_instructions_by_class\":{";
  bool first = true;
  for (int c = 0; c < static_cast<int>(Class::kCount); ++c) {
    if (!warps[c]) continue;
    o << (first ? "" : ",") << "\"" << describe(static_cast<Class>(c)) << "\":" << lanes[c];
    first = false;
  }
  o << "}";
  auto global = [&](const char* what, const MemoryStats& m, u64 unique) {
    o << ",\"" << what << "\":{\"requests\":" << m.requests << ",\"bytes\":" << m.bytes << ",\"sectors\":" << m.sectors
      << ",\"sectors_per_request\":" << ratio(m.sectors, m.requests)
      << ",\"efficiency\":" << ratio(m.bytes, 32 * m.sectors) << ",\"unique_bytes\":" << unique << "}";
  };
  global("global_load", s.global_load, f.loaded);
  global("global_store", s.global_store, f.stored);
  auto shared = [&](const char* what, const SharedStats& m) {
    if (!m.requests) return;
    o << ",\"" << what << "\":{\"requests\":" << m.requests << ",\"wavefronts\":" << m.wavefronts
      << ",\"bank_conflict_degree\":" << ratio(m.wavefronts, m.ideal) << "}";
  };
  shared("shared_load", s.shared_load), shared("shared_store", s.shared_store), shared("ldmatrix", s.ldmatrix),
      shared("stmatrix", s.stmatrix);
  if (s.local_requests) o << ",\"local\":{\"requests\":" << s.local_requests << ",\"bytes\":" << s.local_bytes << "}";
  if (s.cp_async_bytes) o << ",\"cp_async_bytes\":" << s.cp_async_bytes;
  if (s.tma_loads || s.tma_stores) {
    o << ",\"tma\":{\"loads\":" << s.tma_loads << ",\"load_bytes\":" << s.tma_load_bytes
      << ",\"stores\":" << s.tma_stores << ",\"store_bytes\":" << s.tma_store_bytes << "}";
  }
  if (s.atomics) o << ",\"atomics\":" << s.atomics;
  if (!matrix.empty()) {
    o << ",\"matrix\":{";
    first = true;
    for (const auto& [k, v] : matrix) o << (first ? "" : ",") << quoted(k) << ":" << v, first = false;
    o << "}";
  }
  if (!s.in_flight.empty()) {
    o << ",\"wgmma_waits\":{";
    first = true;
    for (const auto& [k, v] : s.in_flight) o << (first ? "" : ",") << quoted(k) << ":" << v, first = false;
    o << "},\"wgmma_serialised\":" << s.wgmma_serialised;
  }
  if (s.uninitialised_ldmatrix) o << ",\"uninitialised_ldmatrix_rows\":" << s.uninitialised_ldmatrix;
  if (s.disordered_metadata) o << ",\"disordered_metadata\":" << s.disordered_metadata;
  if (s.failed_polls) o << ",\"failed_polls\":" << s.failed_polls;
  if (!error.empty()) o << ",\"error\":" << quoted(error);
  o << "}\n";
  if (std::FILE* file = std::fopen(path, "a")) {
    const std::string text = o.str();
    std::fwrite(text.data(), 1, text.size(), file);
    std::fclose(file);
  }
}

void report_totals() {
  const char* verbose = std::getenv("GPU_EMULATOR_VERBOSE");
  if (!verbose || !*verbose || totals.launches == 0) return;
  std::fprintf(
      stderr,
      "[gpu emulator] %llu launches, %.3g thread instructions, %.2f s in kernels, %.1f M thread instructions/s\n",
      static_cast<unsigned long long>(totals.launches), static_cast<double>(totals.lane_instructions), totals.seconds,
      static_cast<double>(totals.lane_instructions) / std::max(totals.seconds, 1e-9) / 1e6);
}

}  // namespace emu
