// What the GPU tests share: a skip with its reason, device memory whose neighbours are watched, names.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "amber/cuda/sparse_gemm/sparse_gemm.h"
#include "amber/dtype.h"
#include "cases/input.h"

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

// An array that fills its allocation; or, with an offset (a multiple of 16 bytes), a slice of a larger one.
//
// The whole allocation starts as 0xff bytes: NaN as a float, and no valid metadata. The emulated GPU counts an
// allocation that was filled so as never written: there a kernel that reads what nobody wrote, in the array or beside
// it, is stopped, and so is a write beyond the allocation. A write beside a slice is found when the slice ends.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count, size_t offset = 0)
      : count_(count), offset_(offset), guard_(offset > 0 ? kGuard : 0) {
    const size_t all = offset_ + bytes() + guard_;
    void* memory = nullptr;
    check(cudaMalloc(&memory, std::max<size_t>(all, 1)));  // no slack: an overrun must show
    memory_ = static_cast<uint8_t*>(memory);
    check(cudaMemset(memory_, 0xff, all));
  }
  explicit DeviceArray(const std::vector<T>& from, size_t offset = 0) : DeviceArray(from.size(), offset) {
    upload(from);
  }
  ~DeviceArray() {
    expect_untouched(memory_, offset_, "before");
    expect_untouched(memory_ + offset_ + bytes(), guard_, "after");
    cudaFree(memory_);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  void upload(const std::vector<T>& from) { check(cudaMemcpy(get(), from.data(), bytes(), cudaMemcpyHostToDevice)); }
  std::vector<T> download() const {
    std::vector<T> to(count_);
    check(cudaMemcpy(to.data(), get(), bytes(), cudaMemcpyDeviceToHost));
    return to;
  }
  T* get() const { return reinterpret_cast<T*>(memory_ + offset_); }

 private:
  static constexpr size_t kGuard = 256;

  static void expect_untouched(const uint8_t* from, size_t size, const char* where) {
    std::vector<uint8_t> guard(size);
    if (size == 0 || cudaMemcpy(guard.data(), from, size, cudaMemcpyDeviceToHost) != cudaSuccess) return;
    EXPECT_EQ(std::count(guard.begin(), guard.end(), 0xff), static_cast<int64_t>(size))
        << "a kernel wrote to the bytes " << where << " an array";
  }

  size_t bytes() const { return count_ * sizeof(T); }
  size_t count_, offset_, guard_;
  uint8_t* memory_ = nullptr;
};

template <typename T>
constexpr DType dtype_of() {
  return sizeof(T) == 4 ? DType::kFloat32 : std::is_same_v<T, Float16> ? DType::kFloat16 : DType::kBFloat16;
}

// Runs `run` with an element of a 16-bit dtype.
template <typename Run>
auto with_16bit(DType dtype, Run run) {
  return dtype == DType::kFloat16 ? run(Float16{}) : run(BFloat16{});
}

// ---- names in the names of tests; CTest filters by the sm80 and sm90 in them

inline std::string name_of(DType dtype) {
  return dtype == DType::kFloat32 ? "fp32" : dtype == DType::kFloat16 ? "fp16" : "bf16";
}

inline std::string name_of(const SparsePattern& sparse) {
  std::string name = sparse.name;
  return name.replace(name.find(':'), 1, "of");
}

inline std::string name_of(MetadataLayout layout) {
  switch (layout) {
    case MetadataLayout::kSm80_16bit:
      return "sm80_16bit";
    case MetadataLayout::kSm80_8bit:
      return "sm80_8bit";
    case MetadataLayout::kSm90_16bit:
      return "sm90_16bit";
    case MetadataLayout::kSm90_8bit:
      return "sm90_8bit";
    case MetadataLayout::kSm100_16bit:
      return "sm100_16bit";
    case MetadataLayout::kSm100_8bit:
      return "sm100_8bit";
  }
  return "unknown";
}

// gtest's generator of names, for parameters that have a name().
struct ByName {
  template <typename Info>
  std::string operator()(const Info& info) const {
    return info.param.name();
  }
};

}  // namespace amber::gpu_test
