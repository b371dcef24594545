// Operands of an instruction into rows of the warp's registers, constants and addresses.
#include "instructions/decode.h"

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

void Decoder::address(const Operand& o, Op& op) {
  const Operand& base = o.kind == Operand::kAddress ? o.items.at(0) : o;
  op.offset = o.offset;
  if (base.kind == Operand::kRegister) {
    const int width = kernel.function->registers.at(base.name).bits;
    if (width == 64) op.flags |= 1;
    op.a = rows.at(base.name);
  } else {
    op.flags |= 1;
    op.a = source(base, 64);
  }
}

}  // namespace emu
