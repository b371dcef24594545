#include "amber/cuda/prune.h"

#include <algorithm>

#include "amber/cuda/element.h"
#include "amber/select.h"

namespace amber::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxBlocks = 1 << 16;

template <typename T, int M>
__device__ __forceinline__ uint32_t select_fixed(const T* x, const float* scale, int n) {
  uint32_t key[M];
#pragma unroll
  for (int i = 0; i < M; ++i) key[i] = score_key(widen(x[i]), scale ? scale[i] : 1.0f);
  return survivors<M>(key, n);
}

// M known at compile time for the common patterns, 0 for any other.
template <typename T, int M>
__device__ __forceinline__ uint32_t select_group(const T* x, const float* scale, Pattern pattern) {
  if constexpr (M > 0) {
    return select_fixed<T, M>(x, scale, pattern.n);
  } else {
    uint32_t key[kMaxM];
    for (int i = 0; i < pattern.m; ++i) key[i] = score_key(widen(x[i]), scale ? scale[i] : 1.0f);
    return survivors(key, pattern.n, pattern.m);
  }
}

// One thread takes one group at a time.
template <typename T, int M>
__global__ void __launch_bounds__(kThreads)
    prune_groups(const T* x, const float* scale, T* pruned, uint8_t* mask, int64_t groups,
                 int64_t groups_per_row, Pattern pattern) {
  const int m = M > 0 ? M : pattern.m;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t g = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; g < groups; g += stride) {
    const T* group = x + g * m;
    const float* c = scale ? scale + (g % groups_per_row) * m : nullptr;
    const uint32_t keep = select_group<T, M>(group, c, pattern);
#pragma unroll
    for (int i = 0; i < m; ++i) {
      const bool kept = (keep >> i) & 1u;
      if (mask) mask[g * m + i] = kept;
      if (pruned) pruned[g * m + i] = kept ? group[i] : T{};
    }
  }
}

__device__ double block_sum(double value) {
  __shared__ double partial[kThreads / 32];
  __shared__ double total;
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x == 0) {
    double sum = 0.0;
    for (double part : partial) sum += part;
    total = sum;
  }
  __syncthreads();
  const double result = total;
  __syncthreads();
  return result;
}

template <typename T>
__device__ double block_variance(const T* row, int64_t cols) {
  double sum = 0.0;
  for (int64_t k = threadIdx.x; k < cols; k += kThreads) sum += widen(row[k]);
  const double mean = block_sum(sum) / static_cast<double>(cols);
  double squares = 0.0;
  for (int64_t k = threadIdx.x; k < cols; k += kThreads) {
    const double centred = widen(row[k]) - mean;
    squares += centred * centred;
  }
  return block_sum(squares) / static_cast<double>(cols);
}

// One block takes one row at a time; rows were just written, so they come from the cache.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    rescale_rows(const T* x, T* pruned, int64_t rows, int64_t cols) {
  for (int64_t t = blockIdx.x; t < rows; t += gridDim.x) {
    const double var_x = block_variance(x + t * cols, cols);
    const double var_pruned = block_variance(pruned + t * cols, cols);
    const double ratio = var_x / var_pruned;
    const bool usable = var_pruned > 0.0 && ratio > 0.0 && isfinite(ratio);
    const float factor = usable ? static_cast<float>(sqrt(ratio)) : 1.0f;
    for (int64_t k = threadIdx.x; k < cols; k += kThreads) {
      T& value = pruned[t * cols + k];
      value = narrow<T>(widen(value) * factor);
    }
  }
}

template <typename T, int M>
void launch_groups(const cpu::PruneArgs& args, cudaStream_t stream) {
  const int64_t groups_per_row = args.cols / args.pattern.m;
  const int64_t groups = args.rows * groups_per_row;
  const auto blocks =
      static_cast<unsigned>(std::min<int64_t>(kMaxBlocks, (groups + kThreads - 1) / kThreads));
  prune_groups<T, M><<<blocks, kThreads, 0, stream>>>(
      static_cast<const T*>(args.x), args.scale, static_cast<T*>(args.pruned), args.mask, groups,
      groups_per_row, args.pattern);
}

template <typename T>
cudaError_t prune_dtype(const cpu::PruneArgs& args, cudaStream_t stream) {
  switch (args.pattern.m) {
    case 4:
      launch_groups<T, 4>(args, stream);
      break;
    case 8:
      launch_groups<T, 8>(args, stream);
      break;
    case 16:
      launch_groups<T, 16>(args, stream);
      break;
    default:
      launch_groups<T, 0>(args, stream);
  }
  if (args.pruned && args.rescale == cpu::Rescale::kVariance) {
    const auto blocks = static_cast<unsigned>(std::min<int64_t>(kMaxBlocks, args.rows));
    rescale_rows<T><<<blocks, kThreads, 0, stream>>>(
        static_cast<const T*>(args.x), static_cast<T*>(args.pruned), args.rows, args.cols);
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t prune(const cpu::PruneArgs& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  switch (args.dtype) {
    case DType::kFloat32:
      return prune_dtype<float>(args, stream);
    case DType::kFloat16:
      return prune_dtype<Float16>(args, stream);
    case DType::kBFloat16:
      return prune_dtype<BFloat16>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace amber::cuda
