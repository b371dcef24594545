#include "amber/cuda/masked/quantize.h"

#include <algorithm>

#include "amber/cuda/element.h"
#include "amber/cuda/masked/block_variance.h"
#include "amber/rescale.h"

namespace amber::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxBlocks = 1 << 16;
constexpr int kVector = kQuantizeVector;

template <typename T>
struct alignas(kVector * sizeof(T) < 16 ? kVector * sizeof(T) : 16) Vector {
  T element[kVector];
};

// v = x * smooth for columns k .. k + 7.
template <typename T>
__device__ __forceinline__ Vector<float> load_smoothed(const T* row, const float* smooth, int64_t k) {
  const auto x = *reinterpret_cast<const Vector<T>*>(row + k);
  Vector<float> v;
#pragma unroll
  for (int i = 0; i < kVector; ++i) v.element[i] = widen(x.element[i]);
  if (smooth) {
    const auto f = *reinterpret_cast<const Vector<float>*>(smooth + k);
#pragma unroll
    for (int i = 0; i < kVector; ++i) v.element[i] *= f.element[i];
  }
  return v;
}

template <typename T>
__device__ double row_variance(const T* row, const float* smooth, int64_t cols) {
  return block_variance(cols, [&](auto use) {
    for (int64_t k = threadIdx.x * kVector; k < cols; k += kThreads * kVector) {
      const Vector<float> v = load_smoothed(row, smooth, k);
      for (float element : v.element) use(element);
    }
  });
}

// One block takes one row at a time; its second reading comes from the cache.
template <typename T>
__global__ void __launch_bounds__(kThreads) quantize_kernel(QuantizeArgs args, const T* unpruned) {
  for (int64_t t = blockIdx.x; t < args.rows; t += gridDim.x) {
    const T* row = static_cast<const T*>(args.x) + t * args.cols;
    uint32_t absmax = 0;
    for (int64_t k = threadIdx.x * kVector; k < args.cols; k += kThreads * kVector) {
      const Vector<float> v = load_smoothed(row, args.smooth, k);
      for (float element : v.element) absmax = max_magnitude(absmax, element);
    }
    const TokenScale units = token_scale(block_reduce(absmax, MaxBits{}), largest_value(args.type));
    float scale = units.scale;
    if (args.rescale == Rescale::kVariance) {
      const double before = row_variance(unpruned + t * args.cols, args.smooth, args.cols);
      scale *= rescale_factor(before, row_variance(row, args.smooth, args.cols));
    }
    if (threadIdx.x == 0) args.token_scale[t] = scale;

    auto* values = static_cast<uint8_t*>(args.values) + t * args.cols;
    for (int64_t k = threadIdx.x * kVector; k < args.cols; k += kThreads * kVector) {
      const Vector<float> v = load_smoothed(row, args.smooth, k);
      Vector<uint8_t> out;
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        out.element[i] = args.type == QuantizedType::kInt8 ? static_cast<uint8_t>(to_int8(v.element[i], units.inverse))
                                                           : to_e4m3(v.element[i], units.inverse);
      }
      *reinterpret_cast<Vector<uint8_t>*>(values + k) = out;
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) dequantize_kernel(DequantizeArgs args) {
  const int64_t vectors_per_row = args.cols / kVector;
  const int64_t vectors = args.rows * vectors_per_row;
  const T* bias = static_cast<const T*>(args.bias);
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < vectors;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t t = i / vectors_per_row, n = i % vectors_per_row * kVector;
    const auto product = *reinterpret_cast<const Vector<int32_t>*>(args.product + t * args.cols + n);
    const auto weight_scale = *reinterpret_cast<const Vector<float>*>(args.weight_scale + n);
    const float token_scale = args.token_scale[t];
    Vector<T> y;
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      float value = __fmul_rn(__fmul_rn(static_cast<float>(product.element[j]), token_scale), weight_scale.element[j]);
      if (bias) value = __fadd_rn(value, widen(bias[n + j]));
      y.element[j] = narrow<T>(value);
    }
    *reinterpret_cast<Vector<T>*>(static_cast<T*>(args.y) + t * args.cols + n) = y;
  }
}

template <typename T>
cudaError_t launch_quantize(const QuantizeArgs& args, const void* unpruned, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(kMaxBlocks, args.rows));
  quantize_kernel<T><<<blocks, kThreads, 0, stream>>>(args, static_cast<const T*>(unpruned));
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch_dequantize(const DequantizeArgs& args, cudaStream_t stream) {
  const int64_t blocks = (args.rows * (args.cols / kVector) + kThreads - 1) / kThreads;
  dequantize_kernel<T><<<static_cast<unsigned>(std::min<int64_t>(kMaxBlocks, blocks)), kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t quantize_pruned(const QuantizeArgs& args, const void* unpruned, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  if (args.cols % kVector != 0 || (args.rescale == Rescale::kVariance && !unpruned)) return cudaErrorInvalidValue;
  switch (args.dtype) {
    case DType::kFloat32:
      return launch_quantize<float>(args, unpruned, stream);
    case DType::kFloat16:
      return launch_quantize<Float16>(args, unpruned, stream);
    case DType::kBFloat16:
      return launch_quantize<BFloat16>(args, unpruned, stream);
  }
  return cudaErrorInvalidValue;
}

cudaError_t dequantize(const DequantizeArgs& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  if (args.cols % kVector != 0) return cudaErrorInvalidValue;
  switch (args.dtype) {
    case DType::kFloat32:
      return launch_dequantize<float>(args, stream);
    case DType::kFloat16:
      return launch_dequantize<Float16>(args, stream);
    case DType::kBFloat16:
      return launch_dequantize<BFloat16>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace amber::cuda
