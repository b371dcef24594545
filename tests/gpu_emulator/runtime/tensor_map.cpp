// cuTensorMapEncodeTiled.
#include <cuda.h>

#include <cstring>

#include "memory/tensor_map.h"
#include "runtime/runtime.h"

namespace emu {
namespace {

CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                      const cuuint64_t* dims, const cuuint64_t* strides, const cuuint32_t* box,
                      const cuuint32_t* element_strides, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                      CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  if (!map || reinterpret_cast<u64>(map) % 64 || rank < 1 || rank > 5 || reinterpret_cast<u64>(address) % 16)
    return CUDA_ERROR_INVALID_VALUE;
  TensorMap t{};
  t.magic = kTensorMapMagic;
  t.address = reinterpret_cast<u64>(address);
  t.rank = static_cast<u8>(rank);
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
      t.element_bytes = 1;
      break;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
      t.element_bytes = 2;
      break;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
      t.element_bytes = 4;
      break;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
      t.element_bytes = 8;
      break;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  t.swizzle = static_cast<u8>(swizzle);
  if (interleave != CU_TENSOR_MAP_INTERLEAVE_NONE) return CUDA_ERROR_INVALID_VALUE;  // not modelled
  for (u32 i = 0; i < rank; ++i) {
    if (dims[i] == 0 || dims[i] > (u64{1} << 32) || box[i] == 0 || box[i] > 256 || element_strides[i] == 0 ||
        element_strides[i] > 8)
      return CUDA_ERROR_INVALID_VALUE;
    t.dims[i] = dims[i], t.box[i] = static_cast<u16>(box[i]), t.element_stride[i] = static_cast<u8>(element_strides[i]);
    if (i > 0) {
      if (strides[i - 1] % 16 || strides[i - 1] >= (u64{1} << 40)) return CUDA_ERROR_INVALID_VALUE;
      t.strides[i - 1] = strides[i - 1];
    }
  }
  const u64 inner = u64{t.box[0]} * t.element_bytes;
  if (inner % 16) return CUDA_ERROR_INVALID_VALUE;
  const u64 widest = swizzle == CU_TENSOR_MAP_SWIZZLE_32B    ? 32
                     : swizzle == CU_TENSOR_MAP_SWIZZLE_64B  ? 64
                     : swizzle == CU_TENSOR_MAP_SWIZZLE_128B ? 128
                                                             : ~u64{0};
  if (inner > widest || swizzle > CU_TENSOR_MAP_SWIZZLE_128B) return CUDA_ERROR_INVALID_VALUE;
  std::memset(map, 0, sizeof *map);
  std::memcpy(map, &t, sizeof t);
  return CUDA_SUCCESS;
}

}  // namespace

void* tensor_map_encoder() { return reinterpret_cast<void*>(&encode_tiled); }

}  // namespace emu
