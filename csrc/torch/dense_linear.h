// torch's own dense product, through the dispatcher.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <array>
#include <optional>

namespace amber::ops {

// The value of linear's argument `kernel` that prunes and then calls this.
inline constexpr const char* kMaskedDense = "masked_dense";

inline torch::stable::Tensor dense_linear(const torch::stable::Tensor& x, const torch::stable::Tensor& weight,
                                          const std::optional<torch::stable::Tensor>& bias) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(x), torch::stable::detail::from(weight),
                                    torch::stable::detail::from(bias)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::linear", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<torch::stable::Tensor>(stack[0]);
}

}  // namespace amber::ops
