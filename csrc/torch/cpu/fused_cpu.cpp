// Fused producers of compressed forms on the CPU, where a form is the pruned rows themselves: layout 'dense'.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <array>
#include <tuple>

#include "../kernel_choice.h"
#include "amber/cpu/fused/gated.h"
#include "amber/cpu/quantize/quantize.h"
#include "cpu_support.h"

namespace amber::ops {
namespace {

// torch's own, so that a fused layer gives the very same numbers as one that is not.
Tensor silu(const Tensor& x) {
  std::array<StableIValue, 1> stack{torch::stable::detail::from(x)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::silu", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

void check_status(Status status) { check(status == Status::kOk, describe(status)); }

}  // namespace

std::tuple<Tensor, Tensor, Tensor> silu_mul_prune_cpu(Tensor gate, Tensor up, std::optional<Tensor> smooth,
                                                      std::optional<Tensor> scale, std::string pattern_text,
                                                      std::string rescale_text, std::string dtype_text,
                                                      std::string layout) {
  const DType dtype = activation_dtype(gate, "gate");
  check_gated(gate, up);
  const Pattern pattern = checked_pattern(pattern_text);
  const Rescale rescale = checked_rescale(rescale_text);
  const auto quantized = checked_form_dtype(dtype_text, dtype);
  const int64_t cols = checked_columns(gate, pattern, "gate"), rows = tokens_of(gate);
  check(layout == kDense, "layout: '", layout, "' does not run on the CPU; allowed: '", kDense, "'");
  check(quantized || !smooth, "smooth: it is for dtype 'int8' and 'e4m3', not '", dtype_text, "'; it must be None");
  const auto factors = checked_factors("smooth", smooth, cols);
  const auto scales = checked_factors("scale", scale, cols);

  const Tensor activated = torch::stable::contiguous(silu(gate)), other = torch::stable::contiguous(up);
  const ScalarType type = quantized ? scalar_type(*quantized) : scalar_type(dtype);
  Tensor values = torch::stable::new_empty(activated, {rows, cols}, type);
  Tensor token_scale = torch::stable::new_zeros(activated, {quantized ? rows : 0}, ScalarType::Float);
  Tensor metadata = torch::stable::new_empty(activated, {0}, ScalarType::Byte);
  if (values.numel() == 0) return {values, metadata, token_scale};

  const cpu::GatedRows of{activated.const_data_ptr(), other.const_data_ptr()};
  if (quantized) {
    const QuantizeArgs args{of.silu,
                            pointer(factors),
                            pointer(scales),
                            values.mutable_data_ptr(),
                            static_cast<float*>(token_scale.mutable_data_ptr()),
                            rows,
                            cols,
                            pattern,
                            dtype,
                            rescale,
                            *quantized};
    check_status(cpu::validate(args));
    for_rows(rows, cols, [&](int64_t begin, int64_t end) { cpu::quantize_gated_rows(of, args, begin, end); });
  } else {
    const PruneArgs args{of.silu, pointer(scales), values.mutable_data_ptr(), nullptr, rows, cols, pattern,
                         dtype,   rescale};
    check_status(cpu::validate(args));
    for_rows(rows, cols, [&](int64_t begin, int64_t end) { cpu::prune_gated_rows(of, args, begin, end); });
  }
  return {values, metadata, token_scale};
}

}  // namespace amber::ops

STABLE_TORCH_LIBRARY_IMPL(amber, CPU, library) {
  library.impl("silu_mul_prune", TORCH_BOX(&amber::ops::silu_mul_prune_cpu));
}
