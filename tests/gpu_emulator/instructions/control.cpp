// Branches, ends, barriers and fences.
#include "instructions/decode.h"

namespace emu {
namespace {

void yield(Warp& w, const Op&, u32) { w.yielded = true; }
void trap(Warp& w, const Op&, u32 m) { violation(w, __builtin_ctz(m), "executes trap"); }

}  // namespace

bool decode_control(Decoder& d, const Instruction& in, Op& op) {
  const std::string& name = in.parts[0];
  const auto& o = in.operands;
  if (name == "bra") {
    op.cls = Class::kControl;
    op.flow = Flow::kBranch;
    op.target = in.target;
    return true;
  }
  if (name == "ret" || name == "exit") {
    op.cls = Class::kControl;
    op.flow = Flow::kExit;
    return true;
  }
  if (name == "trap" || name == "brkpt") {
    op.cls = Class::kControl;
    op.run = trap;
    return true;
  }
  if (name == "nanosleep") {
    op.cls = Class::kControl;
    op.flow = Flow::kPoll;
    op.run = yield;
    return true;
  }
  if (name == "fence" && in.has("proxy") && in.parts.size() > 2 && in.parts[2] == "async") return false;
  if (name == "membar" || name == "fence" || name == "griddepcontrol" || name == "setmaxnreg" || name == "pmevent") {
    op.cls = Class::kBarrier;
    op.run = nothing;
    if (name == "setmaxnreg") op.flow = Flow::kConverge;
    return true;
  }
  if (name == "bar" || name == "barrier") {
    op.cls = Class::kBarrier;
    if (in.has("warp")) {
      op.flow = Flow::kWarpBarrier;
      op.members = static_cast<int>(d.source(o[0], 32));
      op.run = nothing;
      return true;
    }
    if (in.has("cluster")) {
      op.flow = in.has("arrive") ? Flow::kClusterArrive : Flow::kClusterWait;
      op.run = nothing;
      return true;
    }
    const bool arrive = in.has("arrive");
    if (!arrive && !in.has("sync")) return false;
    op.flow = Flow::kBarrier;
    op.a = d.source(o[0], 32);
    op.flags = static_cast<u8>((o.size() > 1) | arrive << 1);
    if (o.size() > 1) op.b = d.source(o[1], 32);
    op.run = nothing;
    return true;
  }
  return false;
}

}  // namespace emu
