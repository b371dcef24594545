// Y = float(A Wᵀ) * token_scale * weight_scale + bias of 8-bit A and W, each step rounded to fp32 as in
// dequantize_rows. The int32 sums of a few tokens and 64 features at a time become Y: there is no int32 matrix. Needs
// AVX-512 VNNI.
#pragma once

#include <cstdint>

#include "amber/dtype.h"
#include "amber/status.h"

namespace amber::cpu {

struct ScaledProductArgs {
  const int8_t* values;       // A [tokens, in_features], contiguous
  const float* token_scale;   // [tokens]
  const int8_t* weight;       // W [out_features, in_features], its rows weight_stride apart
  const float* weight_scale;  // [out_features]
  const void* bias;           // [out_features] of dtype, or null
  void* y;                    // [tokens, out_features] of dtype
  int64_t tokens;
  int64_t out_features;
  int64_t in_features;
  int64_t weight_stride;
  DType dtype;
};

Status validate(const ScaledProductArgs& args);

// The product as tasks of about equal size. The caller validates once, then gives each thread a range of them; long
// ranges are best, for W is rearranged once in each (scaled_product_vnni.cpp).
int64_t scaled_product_tasks(const ScaledProductArgs& args);
void scaled_product(const ScaledProductArgs& args, int64_t task_begin, int64_t task_end);

}  // namespace amber::cpu
