// The operators on the CPU.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "checks.h"
#include "dense_linear.h"

namespace amber::ops {
namespace {

// Rows per task are chosen so that a task is worth a thread: about 16 k elements.
constexpr int64_t kGrainElements = 16384;

struct Outputs {
  void* pruned = nullptr;
  uint8_t* mask = nullptr;
};

// `x` is contiguous; outputs have its shape.
void run(const Tensor& x, const std::optional<Tensor>& scale, Pattern pattern,
         cpu::Rescale rescale, Outputs outputs) {
  const int64_t cols = checked_columns(x, pattern);
  std::optional<Tensor> contiguous_scale;
  if (scale) {
    check_scale_shape(*scale, cols);
    check(scale->is_cpu(), "scale: it must be on x's device, the CPU");
    contiguous_scale = torch::stable::contiguous(*scale);
    const auto* values = static_cast<const float*>(contiguous_scale->const_data_ptr());
    const int64_t bad = cpu::first_invalid_scale(values, cols);
    if (bad >= 0) {
      fail("scale: element ", bad, " is ", values[bad], "; every element must be finite and > 0");
    }
  }
  if (x.numel() == 0) return;

  const cpu::PruneArgs args{
      x.const_data_ptr(),
      contiguous_scale ? static_cast<const float*>(contiguous_scale->const_data_ptr()) : nullptr,
      outputs.pruned,
      outputs.mask,
      x.numel() / cols,
      cols,
      pattern,
      activation_dtype(x),
      rescale};
  const Status status = cpu::validate(args);
  check(status == Status::kOk, describe(status));
  torch::stable::parallel_for(
      0, args.rows, std::max<int64_t>(1, kGrainElements / cols),
      [&](int64_t begin, int64_t end) { cpu::prune_rows(args, begin, end); });
}

Tensor prune(const Tensor& x, const std::optional<Tensor>& scale, int64_t n, int64_t m,
             const std::string& rescale) {
  activation_dtype(x);
  const Pattern pattern = checked_pattern(n, m);
  const cpu::Rescale rescale_kind = checked_rescale(rescale);
  const Tensor input = torch::stable::contiguous(x);
  Tensor pruned = torch::stable::empty_like(input);
  run(input, scale, pattern, rescale_kind, {pruned.mutable_data_ptr(), nullptr});
  return pruned;
}

}  // namespace

Tensor nm_mask_cpu(Tensor x, std::optional<Tensor> scale, int64_t n, int64_t m) {
  activation_dtype(x);
  const Pattern pattern = checked_pattern(n, m);
  const Tensor input = torch::stable::contiguous(x);
  Tensor mask = torch::stable::new_empty(input, sizes_of(input), ScalarType::Bool);
  run(input, scale, pattern, cpu::Rescale::kNone,
      {nullptr, static_cast<uint8_t*>(mask.mutable_data_ptr())});
  return mask;
}

Tensor nm_prune_cpu(Tensor x, std::optional<Tensor> scale, int64_t n, int64_t m,
                    std::string rescale) {
  return prune(x, scale, n, m, rescale);
}

Tensor linear_cpu(Tensor x, Tensor weight, std::optional<Tensor> bias, std::optional<Tensor> scale,
                  int64_t n, int64_t m, std::string rescale, std::string kernel) {
  check(kernel == kMaskedDense, "kernel: '", kernel, "' does not run on the CPU; allowed: '",
        kMaskedDense, "'");
  checked_columns(x, checked_pattern(n, m));
  check_linear(x, weight, bias);
  const Tensor pruned = prune(x, scale, n, m, rescale);
  return dense_linear(pruned, weight, bias);
}

}  // namespace amber::ops

STABLE_TORCH_LIBRARY_IMPL(amber, CPU, library) {
  library.impl("nm_mask", TORCH_BOX(&amber::ops::nm_mask_cpu));
  library.impl("nm_prune", TORCH_BOX(&amber::ops::nm_prune_cpu));
  library.impl("linear", TORCH_BOX(&amber::ops::linear_cpu));
}
