// What the GPU benchmark times with: device memory of random data, and variants of one problem that take turns.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace gpu_timing {

inline constexpr int kRepeats = 20;
inline constexpr int64_t kReplayed = 512;                  // up to so many tokens
inline constexpr size_t kRotateBytes = size_t{256} << 20;  // several times the largest L2

inline void check(cudaError_t error) {
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
  void fill_16bit(unsigned seed) {
    fill(seed, [](std::mt19937& rng) { return static_cast<uint16_t>((rng() & 0x83ffu) | 0x3c00u); });
  }

  void fill_fp32(unsigned seed) {
    fill(seed, [](std::mt19937& rng) { return std::uniform_real_distribution<float>(0.5f, 1.5f)(rng); });
  }

  // Every bit random; of e4m3, the two values that are NaN become 0.
  void fill_8bit(unsigned seed, bool is_e4m3) {
    fill(seed, [is_e4m3](std::mt19937& rng) {
      const auto value = static_cast<uint8_t>(rng());
      return static_cast<uint8_t>(is_e4m3 && (value & 0x7f) == 0x7f ? 0 : value);
    });
  }

 private:
  template <class Make>
  void fill(unsigned seed, Make make) {
    std::mt19937 rng(seed);
    using Value = decltype(make(rng));
    std::vector<Value> host(std::min<size_t>(bytes_ / sizeof(Value), size_t{1} << 22));
    for (auto& value : host) value = make(rng);
    const size_t block = host.size() * sizeof(Value);
    for (size_t at = 0; at < bytes_; at += block) {
      const bool first = at == 0;  // the others are copies of it
      check(cudaMemcpy(get() + at, first ? static_cast<const void*>(host.data()) : get(), std::min(block, bytes_ - at),
                       first ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToDevice));
    }
  }

  size_t bytes_;
  void* data_ = nullptr;
};

// One way to do what is timed: `launch(copy, stream)` on one of the copies of its inputs; false says that it failed.
struct Variant {
  std::string json;  // what its line says of it
  std::function<bool(int, cudaStream_t)> launch;
  bool failed = false;
  std::vector<float> times = {};
  cudaGraphExec_t graph = nullptr;
};

// A graph of one launch on every copy.
inline void capture(Variant& variant, int copies, cudaStream_t stream) {
  cudaGraph_t graph;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < copies; ++i) variant.failed |= !variant.launch(i, stream);
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&variant.graph, graph, 0));
  check(cudaGraphDestroy(graph));
}

// Takes the times of all variants in turns, and prints a line for each with what `rate` makes of its median in ms.
inline void measure(std::vector<Variant>& variants, int copies, bool replay,
                    const std::function<std::string(double)>& rate) {
  cudaStream_t stream;
  cudaEvent_t start, stop;
  check(cudaStreamCreate(&stream));
  check(cudaEventCreate(&start));
  check(cudaEventCreate(&stop));
  for (auto& variant : variants) {
    for (int i = 0; i < 3; ++i) variant.failed |= !variant.launch(i % copies, stream);
    check(cudaStreamSynchronize(stream));
    if (replay && !variant.failed) capture(variant, copies, stream);
  }
  for (int i = 0; i < kRepeats; ++i) {
    for (auto& variant : variants) {
      if (variant.failed) continue;
      check(cudaEventRecord(start, stream));
      if (variant.graph) {
        check(cudaGraphLaunch(variant.graph, stream));
      } else {
        variant.launch(i % copies, stream);
      }
      check(cudaEventRecord(stop, stream));
      check(cudaEventSynchronize(stop));
      float ms;
      check(cudaEventElapsedTime(&ms, start, stop));
      variant.times.push_back(variant.graph ? ms / copies : ms);
    }
  }
  for (auto& variant : variants) {
    if (variant.graph) check(cudaGraphExecDestroy(variant.graph));
    if (variant.failed) {
      std::printf("{%s, \"ok\": false}\n", variant.json.c_str());
      continue;
    }
    std::sort(variant.times.begin(), variant.times.end());
    const double ms = variant.times[kRepeats / 2];
    std::printf("{%s, \"ok\": true, \"ms\": %.5f, \"p10\": %.5f, \"p90\": %.5f, %s}\n", variant.json.c_str(), ms,
                variant.times[kRepeats / 10], variant.times[kRepeats - 1 - kRepeats / 10], rate(ms).c_str());
  }
  std::fflush(stdout);
  check(cudaEventDestroy(start));
  check(cudaEventDestroy(stop));
  check(cudaStreamDestroy(stream));
}

// printf into a string.
template <class... Values>
std::string text(const char* format, Values... values) {
  char buffer[512];
  std::snprintf(buffer, sizeof buffer, format, values...);
  return buffer;
}

inline std::string gb_per_s(double bytes, double ms) { return text("\"gb_per_s\": %.1f", bytes / ms * 1e-6); }

}  // namespace gpu_timing
