// Population variance of a row that a block holds together; every thread gets it.
#pragma once

#include <cstdint>

#include "amber/cuda/block_reduce.h"

namespace amber::cuda {

// `visit(f)` calls f(element) for each of this thread's elements. All threads of the block must take part.
template <typename Visit>
__device__ double block_variance(int64_t cols, Visit visit) {
  double sum = 0.0;
  visit([&](float element) { sum += element; });
  const double mean = block_reduce(sum, Add{}) / static_cast<double>(cols);
  double squares = 0.0;
  visit([&](float element) { squares += (element - mean) * (element - mean); });
  return block_reduce(squares, Add{}) / static_cast<double>(cols);
}

}  // namespace amber::cuda
