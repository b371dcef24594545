// Instructions into operations, registers into rows.
#include "instructions/decode.h"

#include <cstring>
#include <set>

namespace emu {

int Decoder::bits_of(const Operand& o) const {
  if (o.kind == Operand::kRegister) return kernel.function->registers.at(o.name).bits;
  return 32;
}

u32 Decoder::constant(u64 value, int bits) {
  const bool wide = bits == 64;
  if (bits == 16) value &= 0xffffu;
  if (bits == 8) value &= 0xffu;
  if (!wide) value &= 0xffffffffu;
  const auto key = std::make_pair(value, wide ? 64 : 32);
  if (auto found = constant_rows.find(key); found != constant_rows.end()) return found->second;
  const u32 row = kernel.constant_begin + static_cast<u32>(kernel.constants.size());
  for (int i = 0; i < kLanes; ++i) {
    for (int b = 0; b < (wide ? 8 : 4); ++b) kernel.constants.push_back(static_cast<u8>(value >> (8 * b)));
  }
  constant_rows[key] = row;
  return row;
}

bool Decoder::symbol_value(const std::string& name, u64& value) const {
  for (const Parameter& p : kernel.function->parameters) {
    if (p.name == name) {
      value = reinterpret_cast<u64>(kernel.parameters) + p.offset;
      return true;
    }
  }
  if (auto found = shared_offsets.find(name); found != shared_offsets.end()) {
    value = found->second;
    return true;
  }
  if (auto found = local_offsets.find(name); found != local_offsets.end()) {
    value = found->second;
    return true;
  }
  value = symbol_address(name);
  return value != 0;
}

u32 Decoder::source(const Operand& o, int bits) {
  switch (o.kind) {
    case Operand::kRegister:
      if (kernel.function->registers.at(o.name).bits == 1)
        throw std::runtime_error("a predicate where a value is expected: " + o.name);
      if (bits == 64 && kernel.function->registers.at(o.name).bits != 64)
        throw std::runtime_error("a 64-bit operand in a smaller register: " + o.name);
      return rows.at(o.name);
    case Operand::kImmediate: {
      u64 value = o.value;
      if (o.float_bits == 64 && bits == 32) throw std::runtime_error("a double literal where 32 bits are expected");
      return constant(value, bits);
    }
    case Operand::kSymbol: {
      u64 value;
      if (!symbol_value(o.name, value)) throw std::runtime_error("unknown symbol " + o.name);
      return constant(value, bits);
    }
    case Operand::kSink:
      return constant(0, bits);
    default:
      throw std::runtime_error("unexpected operand " + o.name);
  }
}

u32 Decoder::destination(const Operand& o) {
  if (o.kind == Operand::kSink) return scratch_row;
  if (o.kind != Operand::kRegister) throw std::runtime_error("destination is no register: " + o.name);
  return rows.at(o.name);
}

u32 Decoder::predicate(const Operand& o) {
  if (o.kind == Operand::kSink) return scratch_predicate;
  if (o.kind != Operand::kRegister || kernel.function->registers.at(o.name).bits != 1)
    throw std::runtime_error("no predicate: " + o.name);
  return rows.at(o.name);
}

void Decoder::address(const Operand& o, Op& op, int bits) {
  const Operand& base = o.kind == Operand::kAddress ? o.items.at(0) : o;
  op.offset = o.offset;
  if (base.kind == Operand::kRegister) {
    const int width = kernel.function->registers.at(base.name).bits;
    if (width == 64) op.flags |= 1;
    op.a = rows.at(base.name);
  } else {
    (void)bits;
    op.flags |= 1;
    op.a = source(base, 64);
  }
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

void each_register(const Operand& o, const std::function<void(const std::string&)>& f) {
  if (o.kind == Operand::kRegister) f(o.name);
  for (const Operand& item : o.items) each_register(item, f);
}

bool has_destination(const Instruction& in) {
  const std::string& n = in.parts[0];
  if (n == "st" || n == "red" || n == "bar" || n == "barrier" || n == "stmatrix" || n == "cp" || n == "prefetch" ||
      n == "wgmma" || n == "fence" || n == "nanosleep" || n == "mbarrier" || n == "griddepcontrol" ||
      n == "setmaxnreg") {
    return false;
  }
  return !in.operands.empty();
}

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

}  // namespace

std::unique_ptr<Kernel> decode_kernel(const Module& module, const std::string& name,
                                      const std::function<u64(const std::string&)>& symbol_address) {
  auto kernel = std::make_unique<Kernel>();
  kernel->name = name;
  kernel->function = parse_function(module, name);
  Function& f = *kernel->function;
  kernel->parameter_store.reset(new u8[f.parameter_bytes + 256]());
  kernel->parameters = reinterpret_cast<u8*>((reinterpret_cast<u64>(kernel->parameter_store.get()) + 127) / 128 * 128);

  Decoder d{module, *kernel, symbol_address, {}, {}, {}, {}};
  // Shared memory: what the kernel names, then the dynamic part.
  std::set<std::string> used;
  for (const Instruction& in : f.code) {
    std::function<void(const Operand&)> visit = [&](const Operand& o) {
      if (o.kind == Operand::kSymbol) used.insert(o.name);
      for (const Operand& item : o.items) visit(item);
    };
    for (const Operand& o : in.operands) visit(o);
  }
  // The first kilobyte is the system's, as on a device; so no variable has address 0.
  u64 shared = kSharedReserved, dynamic_align = 1;
  auto place = [&](const Variable& v) {
    if (!used.count(v.name)) return;
    if (v.external) {
      dynamic_align = std::max(dynamic_align, v.align);
      return;
    }
    shared = (shared + v.align - 1) / v.align * v.align;
    d.shared_offsets[v.name] = shared;
    shared += v.bytes;
  };
  for (const Variable& v : module.shared) place(v);
  for (const Variable& v : f.shared) place(v);
  if (dynamic_align > 1 && shared) shared = (shared + 127) / 128 * 128;
  for (const Variable& v : module.shared) {
    if (v.external && used.count(v.name)) {
      d.shared_offsets[v.name] = shared;
      kernel->uses_dynamic_shared = true;
    }
  }
  kernel->static_shared = static_cast<u32>(shared);
  u64 local = 0;
  for (const Variable& v : f.local) {
    local = (local + v.align - 1) / v.align * v.align;
    d.local_offsets[v.name] = local;
    local += v.bytes;
  }
  kernel->local_bytes = static_cast<u32>((local + 15) / 16 * 16);

  assign_rows(d);
  kernel->ops.resize(f.code.size() + 1);
  std::set<std::string> accumulators;
  for (size_t i = 0; i < f.code.size(); ++i) {
    const Instruction& in = f.code[i];
    Op& op = kernel->ops[i];
    op.source = &in;
    try {
      if (!in.guard.empty()) {
        op.guard = static_cast<i16>(d.rows.at(in.guard));
        op.guard_negated = in.guard_negated;
      }
      const bool known = decode_control(d, in, op) || decode_memory(d, in, op) || decode_async(d, in, op) ||
                         decode_matrix(d, in, op) || decode_convert(d, in, op) || decode_alu(d, in, op);
      if (!known) throw std::runtime_error("is not modelled");
    } catch (const std::exception& e) {
      throw std::runtime_error("instruction '" + in.opcode + "' (" + e.what() + ") in kernel " + name);
    }
    if (in.parts[0] == "wgmma" && !in.operands.empty() && in.operands[0].kind == Operand::kVector) {
      for (const Operand& o : in.operands[0].items) accumulators.insert(o.name);
    }
  }
  if (!accumulators.empty()) {
    for (size_t i = 0; i < f.code.size(); ++i) {
      const Instruction& in = f.code[i];
      if (in.parts[0] == "wgmma" || kernel->ops[i].flow != Flow::kNormal) continue;
      for (const Operand& o : in.operands) {
        each_register(o, [&](const std::string& n) {
          if (accumulators.count(n)) kernel->ops[i].flow = Flow::kAccumulator;
        });
      }
    }
  }
  Op& end = kernel->ops.back();  // falling off the end
  end.flow = Flow::kExit;
  end.cls = Class::kControl;
  kernel->register_bytes = kernel->constant_begin + static_cast<u32>(kernel->constants.size());
  return kernel;
}

}  // namespace emu
