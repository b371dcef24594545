// Registers into rows.
#include <algorithm>

#include "instructions/decode.h"

namespace emu {

void each_register(const Operand& o, const std::function<void(const std::string&)>& f) {
  if (o.kind == Operand::kRegister) f(o.name);
  for (const Operand& item : o.items) each_register(item, f);
}

namespace {

// Rows by liveness: registers whose uses do not overlap share a row, so that the working set of a warp stays
// near what a GPU's register file would hold. An interval is the span of a register's occurrences in the text,
// stretched over every loop that it enters alive.
struct Interval {
  int first = -1, last = -1;
  bool first_defines = false;
  int bits = 0;
};

bool has_destination(const Instruction& in) {
  const std::string& n = in.parts[0];
  if (n == "st" || n == "red" || n == "bar" || n == "barrier" || n == "stmatrix" || n == "cp" || n == "prefetch" ||
      n == "wgmma" || n == "fence" || n == "nanosleep" || n == "mbarrier" || n == "griddepcontrol" ||
      n == "setmaxnreg") {
    return false;
  }
  return !in.operands.empty();
}

}  // namespace

void assign_rows(Decoder& d) {
  Function& f = *d.kernel.function;
  std::map<std::string, Interval> intervals;
  for (int i = 0; i < static_cast<int>(f.code.size()); ++i) {
    const Instruction& in = f.code[i];
    auto see = [&](const std::string& name, bool defines) {
      Interval& v = intervals[name];
      if (v.first < 0) v.first = i, v.first_defines = defines;
      v.last = i;
    };
    if (!in.guard.empty()) see(in.guard, false);
    const bool dest = has_destination(in);
    for (size_t k = dest ? 1 : 0; k < in.operands.size(); ++k) {
      each_register(in.operands[k], [&](const std::string& n) { see(n, false); });
    }
    if (dest) {
      // An address in the first place is a use.
      const bool address = in.operands[0].kind == Operand::kAddress;
      each_register(in.operands[0], [&](const std::string& n) { see(n, !address && in.guard.empty()); });
    }
  }
  std::vector<std::pair<int, int>> loops;
  for (int i = 0; i < static_cast<int>(f.code.size()); ++i) {
    if (f.code[i].target >= 0 && f.code[i].target <= i) loops.emplace_back(f.code[i].target, i);
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (auto& [name, v] : intervals) {
      for (const auto& [begin, end] : loops) {
        if (v.last < begin || v.first > end) continue;
        const bool inside = v.first >= begin && v.first_defines;
        if (inside) continue;
        if (v.first > begin || v.last < end) {
          // Live around the loop.
          if (v.first > begin) v.first = begin, changed = true;
          if (v.last < end) v.last = end, changed = true;
        }
      }
      v.bits = f.registers.at(name).bits;
    }
  }
  std::vector<std::pair<int, std::string>> order;
  for (const auto& [name, v] : intervals) order.emplace_back(v.first, name);
  std::sort(order.begin(), order.end());
  // One pool for each width; a released row is used again at once, so that it is still in the cache.
  u32 next_row = 0, next_predicate = 0;
  std::vector<u32> free32, free64, free1;
  std::multimap<int, std::string> ends;
  for (const auto& [first, name] : order) {
    const Interval& v = intervals[name];
    while (!ends.empty() && ends.begin()->first < first) {
      const std::string& done = ends.begin()->second;
      const int bits = intervals[done].bits;
      (bits == 1 ? free1 : bits == 64 ? free64 : free32).push_back(d.rows.at(done));
      ends.erase(ends.begin());
    }
    if (v.bits == 128) throw std::runtime_error("128-bit registers are not modelled");
    auto& pool = v.bits == 1 ? free1 : v.bits == 64 ? free64 : free32;
    u32 row;
    if (!pool.empty()) {
      row = pool.back();
      pool.pop_back();
    } else if (v.bits == 1) {
      row = next_predicate++;
    } else {
      row = next_row;
      next_row += v.bits == 64 ? 2 * kRowBytes : kRowBytes;
    }
    d.rows[name] = row;
    ends.emplace(v.last, name);
  }
  d.scratch_row = next_row;
  next_row += 2 * kRowBytes;
  d.scratch_predicate = next_predicate++;
  d.kernel.constant_begin = next_row;
  d.kernel.predicates = next_predicate;
}

}  // namespace emu
