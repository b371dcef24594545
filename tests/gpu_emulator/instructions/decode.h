// What the files that decode instructions share.
#pragma once

#include <map>
#include <string>
#include <unordered_map>

#include "machine/machine.h"

namespace emu {

struct Decoder {
  const Module& module;
  Kernel& kernel;
  const std::function<u64(const std::string&)>& symbol_address;  // of global and constant variables; 0: unknown
  std::unordered_map<std::string, u32> rows;                     // registers: byte offset, or number of a predicate
  std::map<std::pair<u64, int>, u32> constant_rows;
  std::unordered_map<std::string, u64> shared_offsets, local_offsets;

  int bits_of(const Operand& o) const;
  // The row of a register, or a constant row for an immediate of this width.
  u32 source(const Operand& o, int bits);
  u32 destination(const Operand& o);  // a scratch row for '_'
  u32 predicate(const Operand& o);    // a scratch predicate for '_'
  u32 constant(u64 value, int bits);
  u32 scratch_row = 0;
  u32 scratch_predicate = 0;
  // The value of a symbol in its own space.
  bool symbol_value(const std::string& name, u64& value) const;

  // A memory operand: op.a = row of the base (constant row for a symbol), op.offset.
  void address(const Operand& o, Op& op, int bits);
};

inline int type_bits(const std::string& t) {
  if (t == "pred") return 1;
  if (t == "f16x2" || t == "bf16x2" || t == "tf32") return 32;
  if (t == "bf16" || t == "e4m3x2" || t == "e5m2x2") return 16;
  size_t i = 0;
  while (i < t.size() && (t[i] < '0' || t[i] > '9')) ++i;
  return i < t.size() ? std::atoi(t.c_str() + i) : 0;
}

bool decode_alu(Decoder& d, const Instruction& in, Op& op);
bool decode_convert(Decoder& d, const Instruction& in, Op& op);
bool decode_memory(Decoder& d, const Instruction& in, Op& op);
bool decode_control(Decoder& d, const Instruction& in, Op& op);
bool decode_matrix(Decoder& d, const Instruction& in, Op& op);
bool decode_async(Decoder& d, const Instruction& in, Op& op);

}  // namespace emu
