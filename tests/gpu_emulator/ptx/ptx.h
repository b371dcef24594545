// PTX text into functions and instructions.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ptx/numeric.h"

namespace emu {

struct Operand {
  enum Kind { kRegister, kImmediate, kVector, kAddress, kSymbol, kSpecial, kSink, kPair };
  Kind kind = kSink;
  std::string name;            // register (unique in its function), symbol or special register
  u64 value = 0;               // kImmediate; a float literal as its bits
  int float_bits = 0;          // 32 or 64 where the immediate is a float literal
  bool negated = false;        // !p
  std::vector<Operand> items;  // kVector, kPair; kAddress: base, then further items (tensor coordinates)
  i64 offset = 0;              // kAddress
};

struct Instruction {
  std::string opcode;              // with all suffixes
  std::vector<std::string> parts;  // "ld", "global", "v4", "f32"
  std::vector<Operand> operands;
  std::string guard;  // register name, or empty
  bool guard_negated = false;
  int target = -1;  // of a branch: index of an instruction
  std::string label;
  int line = 0;

  bool has(std::string_view part) const {
    for (const auto& p : parts) {
      if (p == part) return true;
    }
    return false;
  }
};

struct Variable {
  std::string name;
  u64 bytes = 0;
  u64 align = 1;
  std::vector<u8> initial;
  bool external = false;
};

struct Register {
  int bits = 0;  // 1 for a predicate
};

struct Parameter {
  std::string name;
  u64 bytes, align, offset;
};

struct Function {
  std::string name;
  std::vector<Parameter> parameters;
  u64 parameter_bytes = 0;
  std::map<std::string, Register> registers;
  std::vector<Instruction> code;
  std::vector<Variable> local, shared;
  int max_threads = 0;
};

struct Module {
  std::string text;
  std::map<std::string, std::pair<size_t, size_t>> bodies;  // of every function: where its text is
  std::vector<Variable> shared, global, constant;
};

// Reads the module's variables and finds its functions; bodies are parsed when they are needed.
std::unique_ptr<Module> parse_module(std::string text);
std::unique_ptr<Function> parse_function(const Module& module, const std::string& name);

}  // namespace emu
