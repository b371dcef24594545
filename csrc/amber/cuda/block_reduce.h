// Reductions over the threads of a block; every thread gets the result. All threads must take part.
#pragma once

#include <cstdint>
#include <type_traits>

namespace amber::cuda {

inline constexpr int kMaxWarps = 32;

struct MaxBits {
  __device__ __forceinline__ uint32_t operator()(uint32_t a, uint32_t b) const { return a > b ? a : b; }
};

struct Add {
  __device__ __forceinline__ double operator()(double a, double b) const { return a + b; }
};

template <typename T, typename Combine>
__device__ __forceinline__ T warp_reduce(T value, Combine combine) {
  if constexpr (std::is_same_v<Combine, MaxBits>) {
    return __reduce_max_sync(0xffffffffu, value);  // one instruction
  } else {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      value = combine(value, __shfl_xor_sync(0xffffffffu, value, offset));
    }
    return value;
  }
}

// `T{}` must not change a result.
template <typename T, typename Combine>
__device__ __forceinline__ T block_reduce(T value, Combine combine) {
  __shared__ T part[kMaxWarps];
  const int warps = blockDim.x / 32;
  value = warp_reduce(value, combine);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = value;
  __syncthreads();
  const T all = warp_reduce(static_cast<int>(threadIdx.x % 32) < warps ? part[threadIdx.x % 32] : T{}, combine);
  __syncthreads();  // `part` is free again
  return all;
}

}  // namespace amber::cuda
