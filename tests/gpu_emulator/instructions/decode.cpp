// A kernel's instructions into operations; its shared and local variables into offsets.
#include "instructions/decode.h"

#include <algorithm>
#include <set>

#include "machine/shared_memory.h"

namespace emu {
namespace {

void place_variables(Decoder& d) {
  const Function& f = *d.kernel.function;
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
  for (const Variable& v : d.module.shared) place(v);
  for (const Variable& v : f.shared) place(v);
  if (dynamic_align > 1 && shared) shared = (shared + 127) / 128 * 128;
  for (const Variable& v : d.module.shared) {
    if (v.external && used.count(v.name)) d.shared_offsets[v.name] = shared;
  }
  d.kernel.static_shared = static_cast<u32>(shared);
  u64 local = 0;
  for (const Variable& v : f.local) {
    local = (local + v.align - 1) / v.align * v.align;
    d.local_offsets[v.name] = local;
    local += v.bytes;
  }
  d.kernel.local_bytes = static_cast<u32>((local + 15) / 16 * 16);
}

// Other instructions that name registers which wgmma accumulates in must wait for it.
void mark_accumulators(Kernel& kernel) {
  std::set<std::string> accumulators;
  for (const Instruction& in : kernel.function->code) {
    if (in.parts[0] == "wgmma" && !in.operands.empty() && in.operands[0].kind == Operand::kVector) {
      for (const Operand& o : in.operands[0].items) accumulators.insert(o.name);
    }
  }
  if (accumulators.empty()) return;
  for (size_t i = 0; i < kernel.function->code.size(); ++i) {
    const Instruction& in = kernel.function->code[i];
    if (in.parts[0] == "wgmma" || kernel.ops[i].flow != Flow::kNormal) continue;
    for (const Operand& o : in.operands) {
      each_register(o, [&](const std::string& n) {
        if (accumulators.count(n)) kernel.ops[i].flow = Flow::kAccumulator;
      });
    }
  }
}

}  // namespace

std::unique_ptr<Kernel> decode_kernel(const Module& module, const std::string& name,
                                      const std::function<u64(const std::string&)>& symbol_address) {
  auto kernel = std::make_unique<Kernel>();
  kernel->name = name;
  kernel->finish_mmas = finish_mmas;
  kernel->function = parse_function(module, name);
  Function& f = *kernel->function;
  kernel->parameter_store.reset(new u8[f.parameter_bytes + 256]());
  kernel->parameters = reinterpret_cast<u8*>((reinterpret_cast<u64>(kernel->parameter_store.get()) + 127) / 128 * 128);

  Decoder d{module, *kernel, symbol_address, {}, {}, {}, {}};
  place_variables(d);

  assign_rows(d);
  kernel->ops.resize(f.code.size() + 1);
  for (size_t i = 0; i < f.code.size(); ++i) {
    const Instruction& in = f.code[i];
    Op& op = kernel->ops[i];
    op.source = &in;
    try {
      if (!in.guard.empty()) {
        op.guard = static_cast<i16>(d.rows.at(in.guard));
        op.guard_negated = in.guard_negated;
      }
      const bool known = decode_control(d, in, op) || decode_warp_function(d, in, op) || decode_memory(d, in, op) ||
                         decode_matrix_copy(d, in, op) || decode_copy_async(d, in, op) || decode_mbarrier(d, in, op) ||
                         decode_bulk(d, in, op) || decode_mma(d, in, op) || decode_wgmma(d, in, op) ||
                         decode_convert(d, in, op) || decode_predicate(d, in, op) || decode_move(d, in, op) ||
                         decode_bits(d, in, op) || decode_arithmetic(d, in, op);
      if (!known) throw std::runtime_error("is not modelled");
    } catch (const std::exception& e) {
      throw std::runtime_error("instruction '" + in.opcode + "' (" + e.what() + ") in kernel " + name);
    }
  }
  mark_accumulators(*kernel);
  Op& end = kernel->ops.back();  // falling off the end
  end.flow = Flow::kExit;
  end.cls = Class::kControl;
  kernel->register_bytes = kernel->constant_begin + static_cast<u32>(kernel->constants.size());
  return kernel;
}

}  // namespace emu
