#define AMBER_LANES 8
#include "amber/cpu/fused/elementwise_simd.h"

namespace amber::cpu {

const ElementwiseSteps kElementwiseAvx2 = {&simd_multiply};

}  // namespace amber::cpu
