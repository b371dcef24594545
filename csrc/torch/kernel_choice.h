// Which kernel an operator runs. Its caller names one for each range of T; the operator looks at T, on the host, so
// that a compiled graph is the same for every length.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "amber/window.h"
#include "checks.h"

namespace amber::ops {

// Names of kernels that are not sparse GEMMs: prune, then torch's dense product; and that product of x as it is.
inline constexpr const char* kMaskedDense = "masked_dense";
inline constexpr const char* kDense = "dense";

// The pattern that keeps everything.
inline constexpr const char* kUnpruned = "1:1";

// T, the leading dimensions' product; with K = 0 there is no dividing by it.
inline int64_t tokens_of(const Tensor& x) {
  int64_t tokens = 1;
  for (int64_t i = 0; i + 1 < x.dim(); ++i) tokens *= x.size(i);
  return tokens;
}

// kernels[i] for T < thresholds[i], the last one from there on.
inline const std::string& kernel_for(const Tensor& x, const std::vector<std::string>& kernels,
                                     const std::vector<int64_t>& thresholds) {
  check(kernels.size() == thresholds.size() + 1, "kernels: ", kernels.size(), " do not match ", thresholds.size(),
        " thresholds; allowed: one kernel more than thresholds");
  check(std::is_sorted(thresholds.begin(), thresholds.end()), "thresholds: they do not ascend; they must");
  const auto above = std::upper_bound(thresholds.begin(), thresholds.end(), tokens_of(x));
  return kernels[static_cast<size_t>(above - thresholds.begin())];
}

// The weight without its copies, as dense products read it: [N, K]. Other shapes are left to `check_weight_shape`.
inline Tensor dense_weight(Tensor weight, Pattern pattern, int64_t cols) {
  const int extra = extra_windows(pattern);
  const bool has_copies = extra > 0 && weight.dim() == 2 && weight.size(1) == widened_cols(cols, extra);
  return has_copies ? torch::stable::narrow(weight, 1, 0, cols) : weight;
}

}  // namespace amber::ops
