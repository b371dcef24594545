// The vectorised tables of elementwise.h.
#pragma once

#include "amber/cpu/fused/elementwise.h"

namespace amber::cpu {

extern const ElementwiseSteps kElementwiseAvx2;
extern const ElementwiseSteps kElementwiseAvx512;

}  // namespace amber::cpu
