#define AMBER_LANES 16
#include "amber/cpu/fused/elementwise_simd.h"

namespace amber::cpu {

const ElementwiseSteps kElementwiseAvx512 = {&simd_multiply};

}  // namespace amber::cpu
