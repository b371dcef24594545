// What a fused producer computes of its inputs before a row is pruned: rounded as torch rounds it, step by step.
#pragma once

#include <cstdint>

#include "amber/cpu/isa.h"
#include "amber/dtype.h"

namespace amber::cpu {

// One table for each instruction set. Arrays of `count` elements of `dtype`. Subnormal numbers are flushed where the
// calling thread flushes them, as in torch's own operators.
struct ElementwiseSteps {
  // y = a * b, rounded once. NaN's payload is not torch's.
  void (*multiply)(const void* a, const void* b, DType dtype, int64_t count, void* y);
};

const ElementwiseSteps& elementwise_steps(Isa isa);

}  // namespace amber::cpu
