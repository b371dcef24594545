// Conversions of the element types that run on host and device, bit for bit the same.
#pragma once

#include "amber/dtype.h"
#include "amber/macros.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace amber::cuda {

AMBER_HOST_DEVICE float widen(float value) { return value; }

AMBER_HOST_DEVICE float widen(Float16 value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  return to_float(value);
#endif
}

AMBER_HOST_DEVICE float widen(BFloat16 value) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
#else
  return to_float(value);
#endif
}

// To the nearest, ties to even.
template <typename T>
AMBER_HOST_DEVICE T narrow(float value) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, Float16>) {
    return {__half_as_ushort(__float2half_rn(value))};
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
  } else {
    return value;
  }
#else
  return from_float<T>(value);
#endif
}

}  // namespace amber::cuda
