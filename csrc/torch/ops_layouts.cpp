// The compressed form of 2:4 on the host, to look at what the sparse GEMMs read: for tests.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "amber/cpu/compress/compress.h"
#include "amber/cpu/compress/widen.h"
#include "checks.h"

namespace amber::ops {
namespace {

constexpr int kElementBytes = 2;

MetadataLayout checked_layout(const std::string& layout) {
  if (layout == "sm80") return MetadataLayout::kSm80_16bit;
  if (layout == "sm90") return MetadataLayout::kSm90_16bit;
  fail("layout: '", layout, "' is not known; allowed: 'sm80', 'sm90'");
}

void check_16bit_matrix(const char* name, const Tensor& x) {
  const ScalarType dtype = x.scalar_type();
  check(dtype == ScalarType::BFloat16 || dtype == ScalarType::Half, name, ": dtype ",
        torch::headeronly::toString(dtype), " is not supported; allowed: float16, bfloat16");
  check(x.dim() == 2, name, ": shape ", shape(x), " is not allowed; it must be 2-dimensional");
}

// Of x's shape, one byte each.
const uint8_t* checked_mask(const Tensor& x, const Tensor& mask) {
  check(mask.scalar_type() == ScalarType::Bool && sizes_of(mask) == sizes_of(x),
        "mask: ", torch::headeronly::toString(mask.scalar_type()), " ", shape(mask),
        " is not allowed; it must be Bool ", shape(x));
  return static_cast<const uint8_t*>(mask.const_data_ptr());
}

void check_status(Status status) { check(status == Status::kOk, describe(status)); }

}  // namespace

std::tuple<Tensor, Tensor> compress_2_4_cpu(Tensor x, Tensor mask, std::string layout_name) {
  check_16bit_matrix("x", x);
  const MetadataLayout layout = checked_layout(layout_name);
  const Tensor input = torch::stable::contiguous(x), kept = torch::stable::contiguous(mask);
  const int64_t rows = x.size(0), cols = x.size(1);
  Tensor values = torch::stable::new_empty(input, {rows, cols / 2});
  Tensor metadata = torch::stable::new_empty(input, {metadata_bytes(layout, rows, cols)}, ScalarType::Byte);
  check_status(cpu::compress_2_4(input.const_data_ptr(), checked_mask(input, kept), rows, cols, kElementBytes, layout,
                                 values.mutable_data_ptr(), static_cast<uint8_t*>(metadata.mutable_data_ptr())));
  return {values, metadata};
}

Tensor decompress_2_4_cpu(Tensor values, Tensor metadata, std::string layout_name) {
  check_16bit_matrix("values", values);
  const MetadataLayout layout = checked_layout(layout_name);
  const Tensor input = torch::stable::contiguous(values), bytes = torch::stable::contiguous(metadata);
  const int64_t rows = values.size(0), cols = values.size(1) * 2, needed = metadata_bytes(layout, rows, cols);
  check(bytes.scalar_type() == ScalarType::Byte && bytes.numel() == needed,
        "metadata: ", torch::headeronly::toString(bytes.scalar_type()), " ", shape(metadata),
        " is not allowed; it must be Byte [", needed, "]");
  Tensor x = torch::stable::new_empty(input, {rows, cols});
  check_status(cpu::decompress_2_4(input.const_data_ptr(), static_cast<const uint8_t*>(bytes.const_data_ptr()), rows,
                                   cols, kElementBytes, layout, x.mutable_data_ptr()));
  return x;
}

std::tuple<Tensor, Tensor> widen_cpu(Tensor x, Tensor mask, int64_t extra) {
  check_16bit_matrix("x", x);
  check(extra >= 0 && extra <= 2, "extra: ", extra, " is not allowed; it must be 0, 1 or 2");
  const Tensor input = torch::stable::contiguous(x), kept = torch::stable::contiguous(mask);
  const int64_t rows = x.size(0), cols = x.size(1), wide_cols = widened_cols(cols, static_cast<int>(extra));
  Tensor wide = torch::stable::new_empty(input, {rows, wide_cols});
  Tensor wide_mask = torch::stable::new_empty(input, {rows, wide_cols}, ScalarType::Bool);
  check_status(cpu::widen(input.const_data_ptr(), checked_mask(input, kept), rows, cols, kElementBytes,
                          static_cast<int>(extra), wide.mutable_data_ptr(),
                          static_cast<uint8_t*>(wide_mask.mutable_data_ptr())));
  return {wide, wide_mask};
}

}  // namespace amber::ops

STABLE_TORCH_LIBRARY_IMPL(amber, CPU, library) {
  library.impl("compress_2_4", TORCH_BOX(&amber::ops::compress_2_4_cpu));
  library.impl("decompress_2_4", TORCH_BOX(&amber::ops::decompress_2_4_cpu));
  library.impl("widen", TORCH_BOX(&amber::ops::widen_cpu));
}
