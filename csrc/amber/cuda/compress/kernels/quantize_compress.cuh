// The quantise-and-compress kernel and its launch, for rows from any source.
#pragma once

#include "amber/cuda/block_reduce.h"
#include "amber/cuda/compress/quantize_compress.h"
#include "amber/cuda/compress/quantize_compress_lane.h"

namespace amber::cuda {
namespace {

// Two blocks an SM where a thread has one chunk (K <= 16384, which is most layers) and 64 registers suffice: not where
// rows are made of more than one tensor.
template <bool Rescaled, Selection S, int Chunks, typename Source>
inline constexpr int kMinQuantizeBlocks =
    Chunks == 1 && kExtraWindows<S> == 0 && !Rescaled && Source::kTensors == 1 ? 2 : 1;

template <typename T, QuantizedType Type, bool Rescaled, Selection S, int Chunks, typename Source>
__global__ void __launch_bounds__(kMaxQuantizeThreads, kMinQuantizeBlocks<Rescaled, S, Chunks, Source>)
    quantize_compress_kernel(QuantizeCompressArgs args) {
  const int64_t t = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  QuantizeChunk<S> chunk[Chunks];
  RowPart part = quantize_lane_select<T, Rescaled, S, Source>(args, t, thread, threads, chunk);

  part.absmax_bits = block_reduce(part.absmax_bits, MaxBits{});
  const float inverse = token_scale(part.absmax_bits, largest_value(Type)).inverse;
  float factor = 1.0f;
  if constexpr (Rescaled) {
    Moments& m = part.moments;
    m.sum = block_reduce(m.sum, Add{});
    m.squares = block_reduce(m.squares, Add{});
    m.kept_sum = block_reduce(m.kept_sum, Add{});
    m.kept_squares = block_reduce(m.kept_squares, Add{});
    factor = rescale_factor(m, args.cols);
  }
  if (thread == 0 && t < args.value_rows) {
    const float scale = token_scale(part.absmax_bits, largest_value(Type)).scale;
    args.token_scale[t] = t < args.rows ? scale * factor : 0.0f;
  }
  quantize_lane_store<T, Type, S>(args, t, thread, threads, chunk, inverse);
}

template <typename T, QuantizedType Type, bool Rescaled, Selection S, typename Source>
cudaError_t launch(const QuantizeCompressArgs& args, cudaStream_t stream) {
  const int64_t blocks = quantize_blocks(args);
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  const QuantizeThreads shape = quantize_threads(args);
  const auto grid = static_cast<unsigned>(blocks), threads = static_cast<unsigned>(shape.threads);
  if (shape.chunks == 1) {
    quantize_compress_kernel<T, Type, Rescaled, S, 1, Source><<<grid, threads, 0, stream>>>(args);
  } else {
    quantize_compress_kernel<T, Type, Rescaled, S, kMaxQuantizeChunks, Source><<<grid, threads, 0, stream>>>(args);
  }
  return cudaGetLastError();
}

template <typename T, QuantizedType Type, bool Rescaled, typename Source>
cudaError_t launch_pattern(const QuantizeCompressArgs& args, cudaStream_t stream) {
  return with_selection(args.pattern, cudaErrorInvalidValue, [&](auto selection) {
    return launch<T, Type, Rescaled, decltype(selection)::value, Source>(args, stream);
  });
}

template <typename T, QuantizedType Type, typename Source>
cudaError_t launch_type(const QuantizeCompressArgs& args, cudaStream_t stream) {
  return args.rescale ? launch_pattern<T, Type, true, Source>(args, stream)
                      : launch_pattern<T, Type, false, Source>(args, stream);
}

template <typename T, typename Source>
cudaError_t launch_dtype(const QuantizeCompressArgs& args, cudaStream_t stream) {
  return args.type == QuantizedType::kInt8 ? launch_type<T, QuantizedType::kInt8, Source>(args, stream)
                                           : launch_type<T, QuantizedType::kE4m3, Source>(args, stream);
}

// Checks the arguments and launches the kernel of rows from a Source<T>.
template <template <typename> class Source>
cudaError_t launch_quantize_compress(const QuantizeCompressArgs& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  if (is_16bit(args.layout) || args.cols % kQuantizeColumns != 0 || args.cols > kMaxQuantizeColumns ||
      args.value_rows < args.rows) {
    return cudaErrorInvalidValue;
  }
  switch (args.dtype) {
    case DType::kFloat16:
      return launch_dtype<Float16, Source<Float16>>(args, stream);
    case DType::kBFloat16:
      return launch_dtype<BFloat16, Source<BFloat16>>(args, stream);
    case DType::kFloat32:
      return cudaErrorInvalidValue;
  }
  return cudaErrorInvalidValue;
}

}  // namespace
}  // namespace amber::cuda
