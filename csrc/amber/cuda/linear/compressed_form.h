// The compressed form of a layer's input apart from the product that reads it: fused producers make one, and
// run_sparse_product (sparse_linear.h) takes it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "amber/args.h"
#include "amber/metadata.h"

struct CUstream_st;

namespace amber::cuda {

struct FormProblem {
  DType dtype;                             // of the activations
  std::optional<QuantizedType> quantized;  // of the values; none: the activations' dtype
  MetadataLayout layout;
  Pattern pattern;
  Rescale rescale;
  int64_t tokens;       // T
  int64_t in_features;  // K, copies not counted
};

struct FormPlan {
  std::string refusal;  // one line; empty when there is such a form. The rest holds only then.
  FormProblem problem;
  int64_t wide_cols;  // K'
  int64_t rows;       // of values and token scales: T, for SM80 rounded up to what E covers
  int64_t metadata_bytes;
};

FormPlan plan_form(const FormProblem& problem);

// Pointers of the device, 16-byte aligned.
struct SiluMulForm {
  const void *gate, *up;  // [T, K] of the problem's dtype, contiguous
  const float* smooth;    // [K], or null; 8-bit values only
  const float* scale;     // [K] channel scales of the selection, or null
  void* values;           // [rows, K' / 2]
  uint8_t* metadata;
  float* token_scale;  // [rows]; 8-bit values only
};

// The form of silu(gate) * up. Launches on `stream`, allocates nothing, does not synchronise. Returns one line that
// names the step which failed, or an empty one. The plan must not be a refusal.
std::string run_silu_mul_form(const FormPlan& plan, const SiluMulForm& at, CUstream_st* stream);

}  // namespace amber::cuda
