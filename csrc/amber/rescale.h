// The rescale of a pruned token: pruning shrinks it, and one factor gives its survivors the spread that it
// had. The one definition that the CPU and CUDA kernels share.
#pragma once

#include <cmath>

#include "amber/macros.h"

namespace amber {

// From the population variances of the token before and after pruning; 1 where they give no factor.
AMBER_HOST_DEVICE float rescale_factor(double var_before, double var_after) {
  const double ratio = var_before / var_after;
  const bool usable = var_after > 0.0 && ratio > 0.0 && ratio < HUGE_VAL;
  return usable ? static_cast<float>(sqrt(ratio)) : 1.0f;
}

}  // namespace amber
