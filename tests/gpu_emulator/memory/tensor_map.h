// The stand-in for the driver's tensor map: what cuTensorMapEncodeTiled was given, in its 128 opaque bytes.
#pragma once

#include "ptx/numeric.h"

namespace emu {

inline constexpr u64 kTensorMapMagic = 0x70616d5f65746975ull;

struct TensorMap {
  u64 magic;
  u64 address;
  u64 dims[5];
  u64 strides[4];  // bytes, of dimensions 1 up
  u16 box[5];
  u8 element_stride[5];
  u8 rank, element_bytes, swizzle;
};
static_assert(sizeof(TensorMap) <= 128);

}  // namespace emu
