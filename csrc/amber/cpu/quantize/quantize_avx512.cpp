#define AMBER_LANES 16
#include "amber/cpu/quantize/quantize_simd.h"

namespace amber::cpu {

const QuantizeSteps kQuantizeAvx512 = {&simd_smooth, &simd_absmax_bits, &simd_variance, &simd_to_int8,
                                       &simd_dequantize};

}  // namespace amber::cpu
