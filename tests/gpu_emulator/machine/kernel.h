// A decoded kernel: what a warp executes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "machine/stats.h"
#include "ptx/ptx.h"

namespace emu {

constexpr int kLanes = 32;
constexpr u32 kAll = 0xffffffffu;
constexpr u32 kRowBytes = kLanes * 4;

struct Warp;
struct Op;
using Handler = void (*)(Warp&, const Op&, u32 active);

// How the warp's loop treats an operation.
enum class Flow : u8 {
  kNormal,       // runs `run` on the active lanes
  kAccumulator,  // the same, but first finishes wgmma operations in flight, whose registers it names
  kBranch,
  kExit,
  kConverge,  // .sync with a member mask: waits for those lanes, then runs `run`
  kWarpBarrier,
  kBarrier,  // bar / barrier.cta
  kClusterArrive,
  kClusterWait,
  kPoll,   // runs `run`, then lets other warps run where it asked for that
  kBlock,  // `run` sets w.blocked when it must be tried again
};

// What does not fit into the fixed fields of an operation; handlers say what they keep where.
struct WideOperand {
  std::vector<u32> rows;
  std::vector<u32> rows2, rows3, rows4;
  std::vector<int> kinds;
  std::string text;
  u64 a = 0, b = 0, c = 0, e = 0;
};

// An instruction, decoded. What `run` reads from d, a, b, c, type, vec, flags, offset and imm is said beside it.
struct Op {
  Handler run = nullptr;
  u32 d = 0, a = 0, b = 0, c = 0;  // byte offsets of rows in the warp's registers, or numbers of predicates
  i16 guard = -1;
  bool guard_negated = false;
  Flow flow = Flow::kNormal;
  Class cls = Class::kOther;
  u8 type = 0, vec = 1, space = 0, flags = 0;
  int target = -1;
  int members = -1;  // row of the member mask of a .sync instruction; -1: all lanes that live
  i64 offset = 0;    // of an address, or any other number
  u64 imm = 0;
  std::unique_ptr<WideOperand> wide;
  const Instruction* source = nullptr;
};

struct Kernel {
  std::string name;
  std::unique_ptr<Function> function;
  std::vector<Op> ops;
  u32 register_bytes = 0;  // of a warp, constants included
  u32 constant_begin = 0;
  std::vector<u8> constants;  // broadcast rows, copied once into a warp's registers
  u32 predicates = 0;
  u32 local_bytes = 0;
  u32 static_shared = 0;
  std::unique_ptr<u8[]> parameter_store;
  void (*finish_mmas)(Warp&) = nullptr;  // runs the wgmma operations that a warp has in flight
  u8* parameters = nullptr;              // where every launch's arguments are put, 128-byte aligned
};

}  // namespace emu
