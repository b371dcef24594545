// Rows of a gated MLP, silu(gate) * up, made while they are compressed: both steps are rounded to the rows' dtype.
#pragma once

#include <type_traits>

#include "amber/cuda/compress/compress_columns.h"
#include "amber/cuda/compress/sources/silu.h"

namespace amber::cuda {

// One element.
template <typename T>
AMBER_HOST_DEVICE T silu_mul(T gate, T up) {
  const T activated = narrow<T>(silu(widen(gate)));
  return narrow<T>(widen(activated) * widen(up));
}

// Two elements, the first in the low half. On a GPU both are rounded by one instruction, and multiplied by another,
// which rounds their products once, as silu_mul does.
template <typename T>
AMBER_HOST_DEVICE uint32_t silu_mul_pair(uint32_t gate, uint32_t up) {
  const T gate_of[2] = {{static_cast<uint16_t>(gate)}, {static_cast<uint16_t>(gate >> 16)}};
#if defined(__CUDA_ARCH__)
  const float low = silu(widen(gate_of[0])), high = silu(widen(gate_of[1]));
  if constexpr (std::is_same_v<T, Float16>) {
    const __half2 made = __hmul2(__floats2half2_rn(low, high), reinterpret_cast<const __half2&>(up));
    return reinterpret_cast<const uint32_t&>(made);
  } else {
    const __nv_bfloat162 made = __hmul2(__floats2bfloat162_rn(low, high), reinterpret_cast<const __nv_bfloat162&>(up));
    return reinterpret_cast<const uint32_t&>(made);
  }
#else
  const T up_of[2] = {{static_cast<uint16_t>(up)}, {static_cast<uint16_t>(up >> 16)}};
  return silu_mul(gate_of[0], up_of[0]).bits | static_cast<uint32_t>(silu_mul(gate_of[1], up_of[1]).bits) << 16;
#endif
}

template <typename T>
struct SiluMulRows {
  struct Loaded {
    Words4 gate, up;
  };
  static constexpr int kTensors = 2;

  const uint16_t *gate, *up;

  template <typename Args>
  AMBER_HOST_DEVICE SiluMulRows from(const Args& args, int64_t at) {
    return {static_cast<const uint16_t*>(args.x) + at, static_cast<const uint16_t*>(args.up) + at};
  }
  AMBER_HOST_DEVICE Loaded load(const SiluMulRows& of, int64_t at) {
    return {load_streaming(of.gate + at), load_streaming(of.up + at)};
  }
  AMBER_HOST_DEVICE Words4 words(const Loaded& loaded) {
    Words4 made;
    AMBER_UNROLL
    for (int i = 0; i < 4; ++i) made.word[i] = silu_mul_pair<T>(loaded.gate.word[i], loaded.up.word[i]);
    return made;
  }
};

}  // namespace amber::cuda
