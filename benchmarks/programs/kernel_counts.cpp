// Launches every CUDA kernel once on the emulated GPU, which counts what it does, and prints one JSON object for every
// launch, in their order: what was launched, and the least bytes that it must move. kernel_counts.py reads both.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "amber/cuda/compress/prune_compress.h"
#include "amber/cuda/compress/quantize_compress.h"
#include "amber/cuda/compress/sources/silu_mul_compress.h"
#include "amber/cuda/masked/prune.h"
#include "amber/cuda/masked/quantize.h"
#include "amber/cuda/sparse_gemm/sparse_gemm.h"
#include "amber/window.h"

namespace {

using namespace amber;

// Of a kernel that reads or writes X. Rows fill whole blocks of every layout's E.
constexpr int64_t kTokens = 512, kChannels = 4096;
// Of a sparse GEMM: several tiles each way, and more tiles along K than its pipeline has stages.
constexpr int64_t kGemmTokens = 512, kGemmOutputs = 512, kGemmChannels = 2048;

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "amber_kernel_counts: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

class Buffer {
 public:
  explicit Buffer(size_t bytes) : bytes_(bytes) { check(cudaMalloc(&data_, bytes + 1)); }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  template <typename T = void>
  T* get() const {
    return static_cast<T*>(data_);
  }

  // 16-bit numbers around 1 in magnitude; as bytes or words they are harmless too.
  Buffer& fill(unsigned seed) {
    std::mt19937 rng(seed);
    std::vector<uint16_t> host(bytes_ / 2);
    for (auto& value : host) value = static_cast<uint16_t>((rng() & 0x83ffu) | 0x3c00u);
    check(cudaMemcpy(data_, host.data(), bytes_ / 2 * 2, cudaMemcpyHostToDevice));
    return *this;
  }

 private:
  size_t bytes_;
  void* data_ = nullptr;
};

void say(const char* kernel, const char* variant, int64_t elements, int64_t least_loaded, int64_t least_stored) {
  check(cudaDeviceSynchronize());
  std::printf(
      "{\"kernel\": \"%s\", \"variant\": \"%s\", \"elements\": %ld, \"least_loaded\": %ld, \"least_stored\": %ld}\n",
      kernel, variant, static_cast<long>(elements), static_cast<long>(least_loaded), static_cast<long>(least_stored));
}

void count_masked() {
  const int64_t elements = kTokens * kChannels;
  Buffer x(2 * elements), y(2 * elements), values(elements), token_scale(4 * kTokens), product(4 * elements),
      weight_scale(4 * kChannels);
  x.fill(1), product.fill(2), weight_scale.fill(3);
  for (const SparsePattern& sparse : kSparsePatterns) {
    check(cuda::prune(
        {x.get(), nullptr, y.get(), nullptr, kTokens, kChannels, sparse.pattern, DType::kBFloat16, Rescale::kNone},
        nullptr));
    say("prune", sparse.name, elements, 2 * elements, 2 * elements);
  }
  check(cuda::quantize_pruned({x.get(),
                               nullptr,
                               nullptr,
                               values.get(),
                               token_scale.get<float>(),
                               kTokens,
                               kChannels,
                               {2, 4},
                               DType::kBFloat16,
                               Rescale::kNone,
                               QuantizedType::kInt8},
                              nullptr, nullptr));
  say("quantize", "int8", elements, 2 * elements, elements + 4 * kTokens);
  check(cuda::dequantize({product.get<int32_t>(), token_scale.get<float>(), weight_scale.get<float>(), nullptr, y.get(),
                          kTokens, kChannels, DType::kBFloat16},
                         nullptr));
  say("dequantize", "int8", elements, 4 * elements + 4 * (kTokens + kChannels), 2 * elements);
}

void count_compress(const SparsePattern& sparse, bool sm90) {
  const int64_t elements = kTokens * kChannels, wide = kTokens * widened_cols(kChannels, sparse.extra_windows);
  Buffer x(2 * elements), up(2 * elements);
  x.fill(1), up.fill(2);
  {
    const auto layout = sm90 ? MetadataLayout::kSm90_16bit : MetadataLayout::kSm80_16bit;
    Buffer values(wide), metadata(metadata_bytes(layout, kTokens, wide / kTokens));
    cuda::PruneCompressArgs args{x.get(), nullptr,          values.get(), metadata.get<uint8_t>(), kTokens, kChannels,
                                 kTokens, DType::kBFloat16, layout,       sparse.pattern};
    check(cuda::prune_compress(args, nullptr));
    say("prune_compress", sparse.name, elements, 2 * elements, wide + wide / 8);
    args.up = up.get();
    check(cuda::silu_mul_prune_compress(args, nullptr));
    say("silu_mul_prune_compress", sparse.name, elements, 4 * elements, wide + wide / 8);
  }
  const auto layout = sm90 ? MetadataLayout::kSm90_8bit : MetadataLayout::kSm80_8bit;
  for (const auto type : {QuantizedType::kInt8, QuantizedType::kE4m3}) {
    Buffer values(wide / 2), metadata(metadata_bytes(layout, kTokens, wide / kTokens)), token_scale(4 * kTokens);
    cuda::QuantizeCompressArgs args{x.get(),
                                    nullptr,
                                    nullptr,
                                    values.get(),
                                    metadata.get<uint8_t>(),
                                    token_scale.get<float>(),
                                    kTokens,
                                    kChannels,
                                    kTokens,
                                    DType::kBFloat16,
                                    layout,
                                    type,
                                    false,
                                    sparse.pattern};
    const bool int8 = type == QuantizedType::kInt8;
    const int64_t stored = wide / 2 + wide / 8 + 4 * kTokens;
    check(cuda::quantize_compress(args, nullptr));
    say(int8 ? "quantize_compress int8" : "quantize_compress e4m3", sparse.name, elements, 2 * elements, stored);
    args.up = up.get();
    check(cuda::silu_mul_quantize_compress(args, nullptr));
    say(int8 ? "silu_mul_quantize_compress int8" : "silu_mul_quantize_compress e4m3", sparse.name, elements,
        4 * elements, stored);
  }
}

void count_gemm(const cuda::SparseGemmKernel& kernel, int multiprocessors) {
  constexpr int64_t t = kGemmTokens, n = kGemmOutputs, k = kGemmChannels;
  const bool wide = kernel.operands == cuda::Operands::k16bit;
  const int64_t bytes = wide ? 2 : 1;
  Buffer x(2 * t * k), values(bytes * t * k / 2), metadata(metadata_bytes(kernel.layout, t, k)), weight(bytes * n * k),
      output(2 * t * n), token_scale(4 * t), weight_scale(4 * n);
  x.fill(1), weight.fill(2), weight_scale.fill(3);
  auto* e = metadata.get<uint8_t>();
  if (wide) {
    check(cuda::prune_compress({x.get(), nullptr, values.get(), e, t, k, t, kernel.dtype, kernel.layout}, nullptr));
  } else {
    const auto type = kernel.operands == cuda::Operands::kInt8 ? QuantizedType::kInt8 : QuantizedType::kE4m3;
    check(cuda::quantize_compress({x.get(), nullptr, nullptr, values.get(), e, token_scale.get<float>(), t, k, t,
                                   kernel.dtype, kernel.layout, type, false},
                                  nullptr));
  }
  say("input", kernel.name, t * k, 0, 0);
  const cuda::SparseGemmArgs args{values.get(),
                                  e,
                                  weight.get(),
                                  nullptr,
                                  output.get(),
                                  t,
                                  n,
                                  k,
                                  multiprocessors,
                                  token_scale.get<float>(),
                                  weight_scale.get<float>()};
  Buffer workspace(kernel.workspace_bytes(args));
  if (kernel.run(args, workspace.get(), nullptr) != cuda::GemmStatus::kOk) check(cudaErrorLaunchFailure);
  const int64_t scales = wide ? 0 : 4 * (t + n);
  say("sparse_gemm", kernel.name, t * n * k, bytes * (t * k / 2 + n * k) + t * k / 8 + scales, 2 * t * n);
}

}  // namespace

int main() {
  cudaDeviceProp device;
  check(cudaGetDeviceProperties(&device, 0));
  const int arch = device.major * 10 + device.minor;
  count_masked();
  for (const SparsePattern& sparse : kSparsePatterns) count_compress(sparse, arch == 90);
  for (const cuda::SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    if (kernel->runs_on(arch)) count_gemm(*kernel, device.multiProcessorCount);
  }
  return 0;
}
