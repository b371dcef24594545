// What the GPU tests share: a skip with its reason, device memory that starts poisoned, random input.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "amber/cpu/compress/widen.h"
#include "amber/cuda/sparse_gemm/sparse_gemm.h"
#include "amber/dtype.h"

namespace amber::gpu_test {

inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

// Empty when a GPU is there, else why not.
inline std::string no_gpu() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) return std::string("no usable GPU: ") + cudaGetErrorString(error);
  return count > 0 ? "" : "no GPU in this machine";
}

#define AMBER_NEEDS_GPU() \
  if (const std::string reason = amber::gpu_test::no_gpu(); !reason.empty()) GTEST_SKIP() << reason

inline int device_attribute(cudaDeviceAttr attribute) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, attribute, 0));
  return value;
}

inline int device_arch() {
  return device_attribute(cudaDevAttrComputeCapabilityMajor) * 10 + device_attribute(cudaDevAttrComputeCapabilityMinor);
}

// Starts as 0xff bytes: NaN as a float, and no valid metadata.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    check(cudaMalloc(&data_, std::max<size_t>(bytes(), 1)));  // no slack: an overrun must show
    check(cudaMemset(data_, 0xff, bytes()));
  }
  explicit DeviceArray(const std::vector<T>& from) : DeviceArray(from.size()) { upload(from); }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  void upload(const std::vector<T>& from) { check(cudaMemcpy(data_, from.data(), bytes(), cudaMemcpyHostToDevice)); }
  std::vector<T> download() const {
    std::vector<T> to(count_);
    check(cudaMemcpy(to.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return to;
  }
  T* get() const { return static_cast<T*>(data_); }

 private:
  size_t bytes() const { return count_ * sizeof(T); }
  size_t count_;
  void* data_ = nullptr;
};

template <typename T>
std::vector<T> random_normal(size_t count, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<T> x(count);
  for (T& value : x) value = from_float<T>(normal(rng));
  return x;
}

// Normal numbers with NaN, Inf, -0 and ties among them.
template <typename T>
std::vector<T> random_awkward(size_t count, unsigned seed) {
  std::vector<T> x = random_normal<T>(count, seed);
  std::mt19937 rng(seed + 1);
  const float specials[] = {
      std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity(), -0.0f, 0.0f, 1.0f, -1.0f};
  for (T& value : x) {
    if (const int kind = rng() % 16; kind < 6) value = from_float<T>(specials[kind]);
  }
  return x;
}

// N of a product whose last tile is as narrow as the kernel allows.
inline int64_t odd_out_features(const cuda::SparseGemmDescriptor& kernel) { return 256 + kernel.out_features_multiple; }

// A weight [n, k] with the copies that a pattern's windows need.
template <typename T>
std::vector<T> widen_weight(const std::vector<T>& weight, int64_t k, Pattern pattern) {
  const int extra = extra_windows(pattern);
  const int64_t n = static_cast<int64_t>(weight.size()) / k, wide = widened_cols(k, extra);
  std::vector<T> result(n * wide, T{});
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t column = 0; column < wide; ++column) {
      const int64_t source = cpu::source_column(column, k, extra);
      if (source >= 0) result[row * wide + column] = weight[row * k + source];
    }
  }
  return result;
}

template <typename T>
constexpr DType dtype_of() {
  return sizeof(T) == 4 ? DType::kFloat32 : std::is_same_v<T, Float16> ? DType::kFloat16 : DType::kBFloat16;
}

}  // namespace amber::gpu_test
