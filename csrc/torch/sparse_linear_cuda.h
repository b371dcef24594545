// The operators that run on sparse tensor cores: prune and compress, then a sparse GEMM.
#pragma once

#include <optional>
#include <string>

#include "checks.h"

namespace amber::ops {

// `linear` with the name of a sparse GEMM as its kernel.
Tensor sparse_linear_cuda(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                          const std::optional<Tensor>& scale, const std::string& pattern, const std::string& rescale,
                          const std::string& kernel);

// `linear_w8a8` with the name of a sparse GEMM as its kernel.
Tensor sparse_linear_w8a8_cuda(const Tensor& x, const Tensor& weight, const Tensor& weight_scale,
                               const std::optional<Tensor>& bias, const std::optional<Tensor>& smooth,
                               const std::optional<Tensor>& scale, const std::string& pattern,
                               const std::string& rescale, const std::string& kernel);

}  // namespace amber::ops
