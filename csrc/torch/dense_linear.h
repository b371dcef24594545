// Dense products, through the dispatcher.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <array>
#include <optional>
#include <string>

namespace amber::ops {

// torch's own.
inline torch::stable::Tensor dense_linear(const torch::stable::Tensor& x, const torch::stable::Tensor& weight,
                                          const std::optional<torch::stable::Tensor>& bias) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(x), torch::stable::detail::from(weight),
                                    torch::stable::detail::from(bias)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::linear", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<torch::stable::Tensor>(stack[0]);
}

// The same on 8 bits, with quantising before and scales after it: amber_ext/ops/dense_products.py puts it together.
inline torch::stable::Tensor masked_dense_w8a8(const torch::stable::Tensor& x, const torch::stable::Tensor& weight,
                                               const torch::stable::Tensor& weight_scale,
                                               const std::optional<torch::stable::Tensor>& bias,
                                               const std::optional<torch::stable::Tensor>& smooth,
                                               const std::optional<torch::stable::Tensor>& scale,
                                               const std::string& pattern, const std::string& rescale) {
  using torch::stable::detail::from;
  std::array<StableIValue, 8> stack{from(x),      from(weight), from(weight_scale), from(bias),
                                    from(smooth), from(scale),  from(pattern),      from(rescale)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("amber::masked_dense_w8a8", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<torch::stable::Tensor>(stack[0]);
}

}  // namespace amber::ops
