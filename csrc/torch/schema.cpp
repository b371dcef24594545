// The operators' schemas. Python registers their fakes (amber_ext/ops/library.py), each device its kernels.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(amber, library) {
  library.def("nm_mask(Tensor x, Tensor? scale, str pattern) -> Tensor");
  library.def("nm_prune(Tensor x, Tensor? scale, str pattern, str rescale) -> Tensor");
  // kernels[i] runs for T < thresholds[i], the last one from there on (kernel_choice.h).
  library.def(
      "linear(Tensor x, Tensor weight, Tensor? bias, Tensor? scale, str pattern, str rescale, "
      "str[] kernels, int[] thresholds) -> Tensor");
  library.def(
      "quantize_activations(Tensor x, Tensor? smooth, Tensor? scale, str pattern, str rescale, str dtype) "
      "-> (Tensor, Tensor)");
  library.def(
      "linear_w8a8(Tensor x, Tensor weight, Tensor weight_scale, Tensor? bias, Tensor? smooth, "
      "Tensor? scale, str pattern, str rescale, str[] kernels, int[] thresholds) -> Tensor");
  // A compressed form is values, E and token scales in a named layout: docs/design.md, "The compressed form".
  library.def(
      "silu_mul_prune(Tensor gate, Tensor up, Tensor? smooth, Tensor? scale, str pattern, str rescale, str dtype, "
      "str layout) -> (Tensor, Tensor, Tensor)");
  library.def(
      "sparse_linear_compressed(Tensor values, Tensor metadata, Tensor token_scale, Tensor weight, "
      "Tensor? weight_scale, Tensor? bias, str pattern, str dtype, str layout, str[] kernels, int[] thresholds) -> "
      "Tensor");
  library.def("dequantize(Tensor product, Tensor token_scale, Tensor weight_scale, Tensor? bias, str dtype) -> Tensor");
  library.def(
      "scaled_product(Tensor values, Tensor token_scale, Tensor weight, Tensor weight_scale, Tensor? bias, str dtype) "
      "-> Tensor");
  library.def("compress_2_4(Tensor x, Tensor mask, str layout) -> (Tensor, Tensor)");
  library.def("decompress_2_4(Tensor values, Tensor metadata, str layout) -> Tensor");
  library.def("widen(Tensor x, Tensor mask, int extra) -> (Tensor, Tensor)");
  // JSON: how this library was built, what this CPU can do, and all kernels.
  library.def("build_info() -> str");
  // JSON, and why a sparse GEMM does not run a problem ("" when it does): for what chooses a kernel.
  library.def("sparse_gemm_kernels() -> str");
  library.def(
      "sparse_gemm_refusal(str kernel, int arch, str operands, str dtype, str pattern, str rescale, int tokens, "
      "int out_features, int in_features) -> str");
}
