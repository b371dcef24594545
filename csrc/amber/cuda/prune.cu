#include "amber/cuda/prune.h"

#include <algorithm>

#include "amber/cuda/element.h"
#include "amber/select.h"
#include "amber/select_window.h"

namespace amber::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxBlocks = 1 << 16;

// Loads and stores of a whole group take 16 bytes at a time, or all of a smaller group.
template <typename T, int M>
struct alignas(M * sizeof(T) < 16 ? M * sizeof(T) : 16) Group {
  T element[M];
};

template <typename T, int M>
__device__ __forceinline__ Group<T, M> load_group(const T* from) {
  return *reinterpret_cast<const Group<T, M>*>(from);
}

template <typename T, int M>
__device__ __forceinline__ void store_group(T* to, const Group<T, M>& group) {
  *reinterpret_cast<Group<T, M>*>(to) = group;
}

// One thread takes one group at a time. Pointers are 16-byte aligned. Extra > 0: a windowed pattern.
template <typename T, int M, int Extra = 0>
__global__ void __launch_bounds__(kThreads)
    prune_groups(const T* x, const float* scale, T* pruned, uint8_t* mask, int64_t groups,
                 int64_t groups_per_row, Pattern pattern) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t g = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; g < groups; g += stride) {
    const Group<T, M> group = load_group<T, M>(x + g * M);
    Group<float, M> c;
#pragma unroll
    for (int i = 0; i < M; ++i) c.element[i] = 1.0f;
    if (scale) c = load_group<float, M>(scale + g % groups_per_row * M);

    uint32_t key[M];
#pragma unroll
    for (int i = 0; i < M; ++i) key[i] = score_key(widen(group.element[i]), c.element[i]);
    uint32_t keep;
    if constexpr (Extra > 0) {
      keep = survivors_windowed<Extra>(key);
    } else {
      keep = survivors<M>(key, pattern.n);
    }

    Group<T, M> kept;
    Group<uint8_t, M> flags;
#pragma unroll
    for (int i = 0; i < M; ++i) {
      flags.element[i] = (keep >> i) & 1u;
      kept.element[i] = flags.element[i] ? group.element[i] : T{};
    }
    if (pruned) store_group<T, M>(pruned + g * M, kept);
    if (mask) store_group<uint8_t, M>(mask + g * M, flags);
  }
}

__device__ uint32_t survivors_windowed(const uint32_t (&key)[kMaxM], Pattern pattern) {
  uint32_t sixteen[kWindowColumns];
#pragma unroll
  for (int i = 0; i < kWindowColumns; ++i) sixteen[i] = key[i];
  return pattern.n == 10 ? amber::survivors_windowed<1>(sixteen) : amber::survivors_windowed<2>(sixteen);
}

// Any M, any alignment.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    prune_groups_of_any_size(const T* x, const float* scale, T* pruned, uint8_t* mask, int64_t groups,
                             int64_t groups_per_row, Pattern pattern) {
  const int m = pattern.m;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t g = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; g < groups; g += stride) {
    const T* group = x + g * m;
    const float* c = scale ? scale + g % groups_per_row * m : nullptr;
    uint32_t key[kMaxM];
    for (int i = 0; i < m; ++i) key[i] = score_key(widen(group[i]), c ? c[i] : 1.0f);
    const uint32_t keep = pattern.windowed ? survivors_windowed(key, pattern) : survivors(key, pattern.n, m);
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

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

template <typename T>
using GroupsKernel = void (*)(const T*, const float*, T*, uint8_t*, int64_t, int64_t, Pattern);

template <typename T>
GroupsKernel<T> groups_kernel(const cpu::PruneArgs& args) {
  if (aligned(args.x) && aligned(args.scale) && aligned(args.pruned) && aligned(args.mask)) {
    if (args.pattern.windowed) return args.pattern.n == 10 ? prune_groups<T, 16, 1> : prune_groups<T, 16, 2>;
    if (args.pattern.m == 4) return prune_groups<T, 4>;
    if (args.pattern.m == 8) return prune_groups<T, 8>;
    if (args.pattern.m == 16) return prune_groups<T, 16>;
  }
  return prune_groups_of_any_size<T>;
}

template <typename T>
cudaError_t prune_dtype(const cpu::PruneArgs& args, cudaStream_t stream) {
  const int64_t groups_per_row = args.cols / args.pattern.m;
  const int64_t groups = args.rows * groups_per_row;
  const int64_t blocks = std::min<int64_t>(kMaxBlocks, (groups + kThreads - 1) / kThreads);
  groups_kernel<T>(args)<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(
      static_cast<const T*>(args.x), args.scale, static_cast<T*>(args.pruned), args.mask, groups,
      groups_per_row, args.pattern);
  if (args.pruned && args.rescale == cpu::Rescale::kVariance) {
    const int64_t row_blocks = std::min<int64_t>(kMaxBlocks, args.rows);
    rescale_rows<T><<<static_cast<unsigned>(row_blocks), kThreads, 0, stream>>>(
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
