// Torch-free GPU benchmark: copy bandwidth, the compressing kernels, and every sparse GEMM over raster
// orders and swizzles. Prints one JSON object a line. Usage: amber_gpu_benchmark [tokens...]
//
// Medians of CUDA-event timings on random data; inputs rotate through more memory than L2 holds.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "amber/cuda/compress/prune_compress.h"
#include "amber/cuda/compress/quantize_compress.h"
#include "amber/cuda/sparse_gemm/sparse_gemm.h"
#include "amber/window.h"

namespace {

using namespace amber;

constexpr int kRepeats = 20;
constexpr size_t kRotateBytes = size_t{256} << 20;  // several times the largest L2

void check(cudaError_t error) {
  if (error != cudaSuccess) {
    std::fprintf(stderr, "CUDA error: %s\n", cudaGetErrorString(error));
    std::exit(1);
  }
}

class Buffer {
 public:
  explicit Buffer(size_t bytes) : bytes_(bytes) { check(cudaMalloc(&data_, std::max<size_t>(bytes, 1))); }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  char* get() const { return static_cast<char*>(data_); }

  // bf16 or fp16 numbers around 1 with random mantissas and signs.
  void fill_random(unsigned seed) {
    std::mt19937 rng(seed);
    std::vector<uint16_t> host(std::min<size_t>(bytes_ / 2, size_t{1} << 22));
    for (auto& value : host) value = static_cast<uint16_t>((rng() & 0x83ffu) | 0x3c00u);
    for (size_t at = 0; at < bytes_; at += host.size() * 2) {
      check(cudaMemcpy(get() + at, host.data(), std::min(host.size() * 2, bytes_ - at), cudaMemcpyHostToDevice));
    }
  }

 private:
  size_t bytes_;
  void* data_ = nullptr;
};

double median_ms(const std::function<void(int)>& launch) {
  cudaEvent_t start, stop;
  check(cudaEventCreate(&start));
  check(cudaEventCreate(&stop));
  for (int i = 0; i < 3; ++i) launch(i);
  std::vector<float> times(kRepeats);
  for (int i = 0; i < kRepeats; ++i) {
    check(cudaEventRecord(start));
    launch(i);
    check(cudaEventRecord(stop));
    check(cudaEventSynchronize(stop));
    check(cudaEventElapsedTime(&times[i], start, stop));
  }
  check(cudaEventDestroy(start));
  check(cudaEventDestroy(stop));
  std::sort(times.begin(), times.end());
  return times[kRepeats / 2];
}

struct Shape {
  const char* name;
  int64_t n, k;
};

// Llama-3.1-8B and Qwen2-7B.
const Shape kShapes[] = {{"llama q", 4096, 4096}, {"llama gate", 14336, 4096}, {"llama down", 4096, 14336},
                         {"qwen2 q", 3584, 3584}, {"qwen2 gate", 18944, 3584}, {"qwen2 down", 3584, 18944}};

void benchmark_copy() {
  const size_t bytes = size_t{1} << 30;
  Buffer from(bytes), to(bytes);
  from.fill_random(1);
  const double ms =
      median_ms([&](int) { check(cudaMemcpyAsync(to.get(), from.get(), bytes, cudaMemcpyDeviceToDevice)); });
  std::printf("{\"kind\": \"copy\", \"bytes\": %zu, \"ms\": %.5f, \"gb_per_s\": %.1f}\n", bytes, ms,
              2.0 * bytes / ms * 1e-6);
}

// Bytes that compressing moves for each element of X: X itself, and values and E of K' columns.
double bytes_per_element(Pattern pattern, int value_bytes) {
  return 2.0 + (4 + extra_windows(pattern)) / 4.0 * (value_bytes / 2.0 + 1.0 / 8);
}

void benchmark_compress(const SparsePattern& sparse, int64_t t, int64_t k, MetadataLayout layout) {
  const int64_t wide_k = widened_cols(k, sparse.extra_windows);
  const size_t x_bytes = static_cast<size_t>(t) * k * 2;
  const int copies = static_cast<int>(std::max<size_t>(1, kRotateBytes / x_bytes));
  const int64_t value_rows = layout == MetadataLayout::kSm80_16bit ? metadata_rows(layout, t) : t;
  Buffer x(x_bytes * copies), scale(k * 4), values(value_rows * wide_k), metadata(metadata_bytes(layout, t, wide_k));
  x.fill_random(2);
  std::vector<float> ones(k, 1.25f);
  check(cudaMemcpy(scale.get(), ones.data(), k * 4, cudaMemcpyHostToDevice));
  const double ms = median_ms([&](int i) {
    check(cuda::prune_compress(
        {x.get() + x_bytes * (i % copies), reinterpret_cast<float*>(scale.get()), values.get(),
         reinterpret_cast<uint8_t*>(metadata.get()), t, k, value_rows, DType::kBFloat16, layout, sparse.pattern},
        nullptr));
  });
  std::printf(
      "{\"kind\": \"prune_compress\", \"pattern\": \"%s\", \"t\": %ld, \"k\": %ld, \"ms\": %.5f, \"gb_per_s\": %.1f}\n",
      sparse.name, static_cast<long>(t), static_cast<long>(k), ms,
      bytes_per_element(sparse.pattern, 2) * t * k / ms * 1e-6);
}

// `smoothed`: factors on the fly.
void benchmark_quantize_compress(const SparsePattern& sparse, int64_t t, int64_t k, MetadataLayout layout,
                                 bool smoothed) {
  const int64_t wide_k = widened_cols(k, sparse.extra_windows);
  const size_t x_bytes = static_cast<size_t>(t) * k * 2;
  const int copies = static_cast<int>(std::max<size_t>(1, kRotateBytes / x_bytes));
  const int64_t value_rows = layout == MetadataLayout::kSm80_8bit ? metadata_rows(layout, t) : t;
  Buffer x(x_bytes * copies), factors(k * 4), values(value_rows * wide_k / 2),
      metadata(metadata_bytes(layout, t, wide_k)), token_scale(value_rows * 4);
  x.fill_random(2);
  std::vector<float> ones(k, 1.25f);
  check(cudaMemcpy(factors.get(), ones.data(), k * 4, cudaMemcpyHostToDevice));
  const auto* scale = reinterpret_cast<const float*>(factors.get());
  for (bool rescale : {false, true}) {
    const double ms = median_ms([&](int i) {
      check(cuda::quantize_compress(
          {x.get() + x_bytes * (i % copies), smoothed ? scale : nullptr, scale, values.get(),
           reinterpret_cast<uint8_t*>(metadata.get()), reinterpret_cast<float*>(token_scale.get()), t, k, value_rows,
           DType::kBFloat16, layout, QuantizedType::kInt8, rescale, sparse.pattern},
          nullptr));
    });
    std::printf(
        "{\"kind\": \"quantize_compress\", \"pattern\": \"%s\", \"t\": %ld, \"k\": %ld, \"smoothed\": %s, \"rescale\": "
        "%s, "
        "\"ms\": %.5f, \"gb_per_s\": %.1f}\n",
        sparse.name, static_cast<long>(t), static_cast<long>(k), smoothed ? "true" : "false",
        rescale ? "true" : "false", ms, bytes_per_element(sparse.pattern, 1) * t * k / ms * 1e-6);
  }
}

void benchmark_gemm(const cuda::SparseGemmKernel& kernel, const Shape& shape, int64_t t, int multiprocessors) {
  const int64_t rows = kernel.padded_rows ? metadata_rows(kernel.layout, t) : t;
  const bool wide = kernel.operands == cuda::Operands::k16bit;
  Buffer x(t * shape.k * 2), values(rows * shape.k), metadata(metadata_bytes(kernel.layout, t, shape.k));
  Buffer output(rows * shape.n * 2), token_scale(rows * 4), weight_scale(shape.n * 4);
  const size_t weight_bytes = static_cast<size_t>(shape.n) * shape.k * (wide ? 2 : 1);
  const int copies = static_cast<int>(std::max<size_t>(1, kRotateBytes / weight_bytes));
  Buffer weight(weight_bytes * copies);
  x.fill_random(3);
  weight.fill_random(4);
  weight_scale.fill_random(5);
  auto* e = reinterpret_cast<uint8_t*>(metadata.get());
  auto* scales = reinterpret_cast<float*>(token_scale.get());
  if (wide) {
    check(cuda::prune_compress({x.get(), nullptr, values.get(), e, t, shape.k, rows, kernel.dtype, kernel.layout},
                               nullptr));
  } else {
    const auto type = kernel.operands == cuda::Operands::kInt8 ? QuantizedType::kInt8 : QuantizedType::kE4m3;
    check(cuda::quantize_compress({x.get(), nullptr, nullptr, values.get(), e, scales, t, shape.k, rows, kernel.dtype,
                                   kernel.layout, type, false},
                                  nullptr));
  }
  for (auto order : {cuda::RasterOrder::kAlongM, cuda::RasterOrder::kAlongN}) {
    for (int swizzle : {1, 4, 8}) {
      if (kernel.arch == 80 && (swizzle != 1 || order != cuda::RasterOrder::kAlongM)) continue;
      cuda::SparseGemmArgs args{values.get(),
                                reinterpret_cast<uint8_t*>(metadata.get()),
                                weight.get(),
                                nullptr,
                                output.get(),
                                t,
                                shape.n,
                                shape.k,
                                multiprocessors,
                                scales,
                                reinterpret_cast<float*>(weight_scale.get()),
                                order,
                                swizzle};
      Buffer workspace(kernel.workspace_bytes(args));
      bool failed = false;
      const double ms = median_ms([&](int i) {
        args.weight = weight.get() + weight_bytes * (i % copies);
        failed |= kernel.run(args, workspace.get(), nullptr) != cuda::GemmStatus::kOk;
      });
      if (failed) std::fprintf(stderr, "%s failed\n", kernel.name);
      std::printf(
          "{\"kind\": \"sparse_gemm\", \"kernel\": \"%s\", \"shape\": \"%s\", \"t\": %ld, \"n\": %ld, \"k\": %ld, "
          "\"raster\": \"%s\", \"swizzle\": %d, \"ok\": %s, \"ms\": %.5f, \"dense_tflops\": %.1f}\n",
          kernel.name, shape.name, static_cast<long>(t), static_cast<long>(shape.n), static_cast<long>(shape.k),
          order == cuda::RasterOrder::kAlongM ? "M" : "N", swizzle, failed ? "false" : "true", ms,
          2.0 * t * shape.n * shape.k / ms * 1e-9);
      std::fflush(stdout);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    std::fprintf(stderr, "amber_gpu_benchmark: no usable GPU\n");
    return 1;
  }
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0));
  const int arch = properties.major * 10 + properties.minor;
  std::printf("{\"kind\": \"device\", \"name\": \"%s\", \"arch\": %d, \"multiprocessors\": %d}\n", properties.name,
              arch, properties.multiProcessorCount);
  std::vector<int64_t> tokens;
  for (int i = 1; i < argc; ++i) tokens.push_back(std::atoll(argv[i]));
  if (tokens.empty()) tokens = {512, 2048, 8192};

  benchmark_copy();
  const bool sm90 = arch == 90;
  for (int64_t k : {4096, 14336}) {
    for (int64_t t : tokens) {
      for (const SparsePattern& sparse : kSparsePatterns) {
        benchmark_compress(sparse, t, k, sm90 ? MetadataLayout::kSm90_16bit : MetadataLayout::kSm80_16bit);
        for (bool smoothed : {false, true}) {
          benchmark_quantize_compress(sparse, t, k, sm90 ? MetadataLayout::kSm90_8bit : MetadataLayout::kSm80_8bit,
                                      smoothed);
        }
      }
    }
  }
  for (const cuda::SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    if (!kernel->runs_on(arch)) continue;
    for (const Shape& shape : kShapes) {
      for (int64_t t : tokens) benchmark_gemm(*kernel, shape, t, properties.multiProcessorCount);
    }
  }
  return 0;
}
