// Arrays on the emulated device, and whether it refuses a launch.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <vector>

#include "gpu_emulator.h"

template <typename T>
struct Array {
  explicit Array(size_t n) : n(n) { cudaMalloc(&p, n * sizeof(T)); }
  explicit Array(const std::vector<T>& v) : Array(v.size()) {
    cudaMemcpy(p, v.data(), n * sizeof(T), cudaMemcpyHostToDevice);
  }
  ~Array() { cudaFree(p); }
  std::vector<T> get() const {
    std::vector<T> v(n);
    EXPECT_EQ(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return v;
  }
  size_t n;
  T* p = nullptr;
};

inline std::vector<uint32_t> random_words(size_t n, unsigned seed) {
  std::mt19937 rng(seed);
  std::vector<uint32_t> v(n);
  for (auto& x : v) x = rng();
  return v;
}

// A faulty kernel is refused: its violation is counted here, and not against the process.
inline bool refused(const std::function<void()>& launch) {
  launch();
  const bool failed = cudaDeviceSynchronize() != cudaSuccess;
  EXPECT_EQ(gpu_emulator::take_violations(), failed ? 1u : 0u);
  return failed;
}
