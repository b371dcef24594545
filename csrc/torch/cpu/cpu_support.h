// What the CPU operators share: factors that are checked, and rows that are spread over threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>

#include "../checks.h"
#include "amber/cpu/prune/prune.h"

namespace amber::ops {

// Contiguous; every element finite and > 0.
inline std::optional<Tensor> checked_factors(const char* name, const std::optional<Tensor>& factors, int64_t cols) {
  if (!factors) return std::nullopt;
  check_factors(name, *factors, cols);
  check(factors->is_cpu(), name, ": it must be on x's device, the CPU");
  const Tensor contiguous = torch::stable::contiguous(*factors);
  const auto* values = static_cast<const float*>(contiguous.const_data_ptr());
  const int64_t bad = cpu::first_invalid_scale(values, cols);
  if (bad >= 0) {
    fail(name, ": element ", bad, " is ", values[bad], "; every element must be finite and > 0");
  }
  return contiguous;
}

inline const float* pointer(const std::optional<Tensor>& factors) {
  return factors ? static_cast<const float*>(factors->const_data_ptr()) : nullptr;
}

// Rows per task are chosen so that a task is worth a thread: about 16 k elements.
inline constexpr int64_t kGrainElements = 16384;

// run(begin, end) on ranges of rows, `cols` elements each, by torch's threads.
template <typename Run>
void for_rows(int64_t rows, int64_t cols, Run run) {
  torch::stable::parallel_for(0, rows, std::max<int64_t>(1, kGrainElements / cols), run);
}

}  // namespace amber::ops
