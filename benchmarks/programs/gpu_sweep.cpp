// Torch-free GPU benchmark: copy bandwidth, the compressing kernels, and every sparse GEMM over raster
// orders and swizzles. Prints one JSON object a line, as soon as it is measured. Usage: amber_gpu_benchmark [tokens...]
//
// Medians of CUDA-event timings on random data; inputs rotate through more memory than L2 holds. Variants of one
// problem take turns. Up to 512 tokens each variant is replayed from a CUDA graph, so that the CPU's part of a launch
// is not timed.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "amber/cuda/compress/prune_compress.h"
#include "amber/cuda/compress/quantize_compress.h"
#include "amber/cuda/sparse_gemm/sparse_gemm.h"
#include "amber/window.h"
#include "gpu_timing.h"

namespace {

using namespace amber;
using namespace gpu_timing;

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
  from.fill_16bit(1);
  std::vector<Variant> variants{{text("\"kind\": \"copy\", \"bytes\": %zu", bytes), [&](int, cudaStream_t stream) {
                                   return cudaMemcpyAsync(to.get(), from.get(), bytes, cudaMemcpyDeviceToDevice,
                                                          stream) == cudaSuccess;
                                 }}};
  measure(variants, 1, false, [&](double ms) { return gb_per_s(2.0 * bytes, ms); });
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
  x.fill_16bit(2);
  scale.fill_fp32(3);
  auto launch = [&](int copy, cudaStream_t stream) {
    return cuda::prune_compress(
               {x.get() + x_bytes * copy, reinterpret_cast<float*>(scale.get()), values.get(),
                reinterpret_cast<uint8_t*>(metadata.get()), t, k, value_rows, DType::kBFloat16, layout, sparse.pattern},
               stream) == cudaSuccess;
  };
  std::vector<Variant> variants{{text("\"kind\": \"prune_compress\", \"pattern\": \"%s\", \"t\": %ld, \"k\": %ld",
                                      sparse.name, static_cast<long>(t), static_cast<long>(k)),
                                 launch}};
  measure(variants, copies, t <= kReplayed,
          [&](double ms) { return gb_per_s(bytes_per_element(sparse.pattern, 2) * t * k, ms); });
}

// With and without factors on the fly (`smoothed`), with and without the rescale.
void benchmark_quantize_compress(const SparsePattern& sparse, int64_t t, int64_t k, MetadataLayout layout) {
  const int64_t wide_k = widened_cols(k, sparse.extra_windows);
  const size_t x_bytes = static_cast<size_t>(t) * k * 2;
  const int copies = static_cast<int>(std::max<size_t>(1, kRotateBytes / x_bytes));
  const int64_t value_rows = layout == MetadataLayout::kSm80_8bit ? metadata_rows(layout, t) : t;
  Buffer x(x_bytes * copies), factors(k * 4), values(value_rows * wide_k / 2),
      metadata(metadata_bytes(layout, t, wide_k)), token_scale(value_rows * 4);
  x.fill_16bit(2);
  factors.fill_fp32(3);
  const auto* scale = reinterpret_cast<const float*>(factors.get());
  std::vector<Variant> variants;
  for (bool smoothed : {false, true}) {
    for (bool rescale : {false, true}) {
      variants.push_back(
          {text("\"kind\": \"quantize_compress\", \"pattern\": \"%s\", \"t\": %ld, \"k\": %ld, \"smoothed\": %s, "
                "\"rescale\": %s",
                sparse.name, static_cast<long>(t), static_cast<long>(k), smoothed ? "true" : "false",
                rescale ? "true" : "false"),
           [&, smoothed, rescale](int copy, cudaStream_t stream) {
             return cuda::quantize_compress(
                        {x.get() + x_bytes * copy, smoothed ? scale : nullptr, scale, values.get(),
                         reinterpret_cast<uint8_t*>(metadata.get()), reinterpret_cast<float*>(token_scale.get()), t, k,
                         value_rows, DType::kBFloat16, layout, QuantizedType::kInt8, rescale, sparse.pattern},
                        stream) == cudaSuccess;
           }});
    }
  }
  measure(variants, copies, t <= kReplayed,
          [&](double ms) { return gb_per_s(bytes_per_element(sparse.pattern, 1) * t * k, ms); });
}

// Kernels that take the same operands, with every raster order and swizzle.
void benchmark_gemms(const std::vector<const cuda::SparseGemmKernel*>& kernels, const Shape& shape, int64_t t,
                     int multiprocessors) {
  const cuda::SparseGemmKernel& first = *kernels.front();
  const int64_t rows = first.padded_rows ? metadata_rows(first.layout, t) : t;
  const bool wide = first.operands == cuda::Operands::k16bit;
  const bool is_e4m3 = first.operands == cuda::Operands::kE4m3;
  Buffer x(t * shape.k * 2), values(rows * shape.k), metadata(metadata_bytes(first.layout, t, shape.k));
  Buffer output(rows * shape.n * 2), token_scale(rows * 4), weight_scale(shape.n * 4);
  const size_t weight_bytes = static_cast<size_t>(shape.n) * shape.k * (wide ? 2 : 1);
  const int copies = static_cast<int>(std::max<size_t>(1, kRotateBytes / weight_bytes));
  Buffer weight(weight_bytes * copies);
  x.fill_16bit(3);
  wide ? weight.fill_16bit(4) : weight.fill_8bit(4, is_e4m3);
  weight_scale.fill_fp32(5);
  auto* e = reinterpret_cast<uint8_t*>(metadata.get());
  auto* scales = reinterpret_cast<float*>(token_scale.get());
  if (wide) {
    check(cuda::prune_compress({x.get(), nullptr, values.get(), e, t, shape.k, rows, first.dtype, first.layout},
                               nullptr));
  } else {
    const auto type = is_e4m3 ? QuantizedType::kE4m3 : QuantizedType::kInt8;
    check(cuda::quantize_compress(
        {x.get(), nullptr, nullptr, values.get(), e, scales, t, shape.k, rows, first.dtype, first.layout, type, false},
        nullptr));
  }
  check(cudaDeviceSynchronize());
  std::vector<Variant> variants;
  std::vector<std::unique_ptr<Buffer>> workspaces;
  for (const cuda::SparseGemmKernel* kernel : kernels) {
    for (auto order : {cuda::RasterOrder::kAlongM, cuda::RasterOrder::kAlongN}) {
      for (int swizzle : {1, 4, 8}) {
        if (kernel->arch < 90 && (swizzle != 1 || order != cuda::RasterOrder::kAlongM)) continue;
        const cuda::SparseGemmArgs args{values.get(),
                                        e,
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
        workspaces.push_back(std::make_unique<Buffer>(kernel->workspace_bytes(args)));
        char* workspace = workspaces.back()->get();
        variants.push_back({text("\"kind\": \"sparse_gemm\", \"kernel\": \"%s\", \"shape\": \"%s\", \"t\": %ld, \"n\": "
                                 "%ld, \"k\": %ld, "
                                 "\"raster\": \"%s\", \"swizzle\": %d",
                                 kernel->name, shape.name, static_cast<long>(t), static_cast<long>(shape.n),
                                 static_cast<long>(shape.k), order == cuda::RasterOrder::kAlongM ? "M" : "N", swizzle),
                            [=, base = weight.get()](int copy, cudaStream_t stream) {
                              cuda::SparseGemmArgs rotated = args;
                              rotated.weight = base + weight_bytes * copy;
                              return kernel->run(rotated, workspace, stream) == cuda::GemmStatus::kOk;
                            }});
      }
    }
  }
  measure(variants, copies, t <= kReplayed,
          [&](double ms) { return text("\"dense_tflops\": %.1f", 2.0 * t * shape.n * shape.k / ms * 1e-9); });
}

// Those that run here, in groups that take the same operands.
std::vector<std::vector<const cuda::SparseGemmKernel*>> kernels_by_operands(int arch) {
  std::vector<std::vector<const cuda::SparseGemmKernel*>> groups;
  for (const cuda::SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    if (!kernel->runs_on(arch)) continue;
    auto same = std::find_if(groups.begin(), groups.end(), [&](const auto& group) {
      return group.front()->operands == kernel->operands && group.front()->dtype == kernel->dtype &&
             group.front()->layout == kernel->layout;
    });
    if (same == groups.end()) {
      groups.push_back({kernel});
    } else {
      same->push_back(kernel);
    }
  }
  return groups;
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
        benchmark_quantize_compress(sparse, t, k, sm90 ? MetadataLayout::kSm90_8bit : MetadataLayout::kSm80_8bit);
      }
    }
  }
  for (const auto& kernels : kernels_by_operands(arch)) {
    for (const Shape& shape : kShapes) {
      for (int64_t t : tokens) benchmark_gemms(kernels, shape, t, properties.multiProcessorCount);
    }
  }
  return 0;
}
