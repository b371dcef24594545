// What the files that decode instructions share.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <unordered_map>

#include "instructions/simd.h"
#include "machine/machine.h"

namespace emu {

std::unique_ptr<Kernel> decode_kernel(const Module& module, const std::string& name,
                                      const std::function<u64(const std::string&)>& symbol_address);

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
  void address(const Operand& o, Op& op);
};

// registers.cpp
void each_register(const Operand& o, const std::function<void(const std::string&)>& f);
void assign_rows(Decoder& d);

inline int type_bits(const std::string& t) {
  if (t == "pred") return 1;
  if (t == "f16x2" || t == "bf16x2" || t == "tf32") return 32;
  if (t == "bf16" || t == "e4m3x2" || t == "e5m2x2") return 16;
  size_t i = 0;
  while (i < t.size() && (t[i] < '0' || t[i] > '9')) ++i;
  return i < t.size() ? std::atoi(t.c_str() + i) : 0;
}

inline void nothing(Warp&, const Op&, u32) {}

// Each knows some instructions: it fills `op` and returns true, or returns false.
using Decode = bool(Decoder& d, const Instruction& in, Op& op);
Decode decode_control, decode_warp_function;                                           // instructions
Decode decode_arithmetic, decode_bits, decode_convert, decode_move, decode_predicate;  // arithmetic
Decode decode_copy_async, decode_matrix_copy, decode_memory;                           // memory
Decode decode_bulk, decode_mbarrier;                                                   // bulk
Decode decode_mma, decode_wgmma;                                                       // matrix

void finish_mmas(Warp& w);  // matrix/wgmma.cpp

}  // namespace emu
