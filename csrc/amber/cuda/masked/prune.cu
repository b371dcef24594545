#include "amber/cuda/masked/prune.h"

#include <algorithm>

#include "amber/cuda/element.h"
#include "amber/cuda/masked/block_variance.h"
#include "amber/rescale.h"
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
template <typename T, int M, int Extra>
__global__ void __launch_bounds__(kThreads) prune_groups(const T* x, const float* scale, T* pruned, uint8_t* mask,
                                                         int64_t groups, int64_t groups_per_row, Pattern pattern) {
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

// Any M, any alignment. Extra as above.
template <typename T, int Extra>
__global__ void __launch_bounds__(kThreads)
    prune_groups_of_any_size(const T* x, const float* scale, T* pruned, uint8_t* mask, int64_t groups,
                             int64_t groups_per_row, Pattern pattern) {
  const int m = Extra > 0 ? kWindowColumns : pattern.m;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t g = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; g < groups; g += stride) {
    const T* group = x + g * m;
    const float* c = scale ? scale + g % groups_per_row * m : nullptr;
    uint32_t key[Extra > 0 ? kWindowColumns : kMaxM];
    for (int i = 0; i < m; ++i) key[i] = score_key(widen(group[i]), c ? c[i] : 1.0f);
    uint32_t keep;
    if constexpr (Extra > 0) {
      keep = survivors_windowed<Extra>(key);
    } else {
      keep = survivors(key, pattern.n, m);
    }
    for (int i = 0; i < m; ++i) {
      const bool kept = (keep >> i) & 1u;
      if (mask) mask[g * m + i] = kept;
      if (pruned) pruned[g * m + i] = kept ? group[i] : T{};
    }
  }
}

template <typename T>
__device__ double row_variance(const T* row, int64_t cols) {
  return block_variance(cols, [&](auto use) {
    for (int64_t k = threadIdx.x; k < cols; k += kThreads) use(widen(row[k]));
  });
}

// One block takes one row at a time; rows were just written, so they come from the cache.
template <typename T>
__global__ void __launch_bounds__(kThreads) rescale_rows(const T* x, T* pruned, int64_t rows, int64_t cols) {
  for (int64_t t = blockIdx.x; t < rows; t += gridDim.x) {
    const float factor = rescale_factor(row_variance(x + t * cols, cols), row_variance(pruned + t * cols, cols));
    for (int64_t k = threadIdx.x; k < cols; k += kThreads) {
      T& value = pruned[t * cols + k];
      value = narrow<T>(widen(value) * factor);
    }
  }
}

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

template <typename T>
using GroupsKernel = void (*)(const T*, const float*, T*, uint8_t*, int64_t, int64_t, Pattern);

template <typename T, int Extra>
GroupsKernel<T> groups_kernel(const PruneArgs& args) {
  if (aligned(args.x) && aligned(args.scale) && aligned(args.pruned) && aligned(args.mask)) {
    if (args.pattern.m == 16) return prune_groups<T, 16, Extra>;
    if constexpr (Extra == 0) {
      if (args.pattern.m == 4) return prune_groups<T, 4, 0>;
      if (args.pattern.m == 8) return prune_groups<T, 8, 0>;
    }
  }
  return prune_groups_of_any_size<T, Extra>;
}

template <typename T>
GroupsKernel<T> groups_kernel(const PruneArgs& args) {
  return with_extra_windows(args.pattern.windowed ? extra_windows(args.pattern) : 0,
                            [&](auto extra) { return groups_kernel<T, decltype(extra)::value>(args); });
}

template <typename T>
cudaError_t prune_dtype(const PruneArgs& args, cudaStream_t stream) {
  const int64_t groups_per_row = args.cols / args.pattern.m;
  const int64_t groups = args.rows * groups_per_row;
  const int64_t blocks = std::min<int64_t>(kMaxBlocks, (groups + kThreads - 1) / kThreads);
  groups_kernel<T>(args)<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(
      static_cast<const T*>(args.x), args.scale, static_cast<T*>(args.pruned), args.mask, groups, groups_per_row,
      args.pattern);
  if (args.pruned && args.rescale == Rescale::kVariance) {
    const int64_t row_blocks = std::min<int64_t>(kMaxBlocks, args.rows);
    rescale_rows<T><<<static_cast<unsigned>(row_blocks), kThreads, 0, stream>>>(
        static_cast<const T*>(args.x), static_cast<T*>(args.pruned), args.rows, args.cols);
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t prune(const PruneArgs& args, cudaStream_t stream) {
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
