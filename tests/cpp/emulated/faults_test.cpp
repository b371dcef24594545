// Arrays that are too short by one element, or whose last element nobody wrote: whatever kernel gets one, the emulated
// GPU stops it. Nothing is read or written past an array in silence.
#include <memory>

#include "cases/product.h"
#include "emulated.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

struct Bytes {
  const char* name;
  const void* host;  // null: an output
  size_t size, element;
};

enum class Fault { kNone, kShort, kUnwritten };

// One allocation for each array, of exactly its size; that of `faulty` has the fault.
class Arrays {
 public:
  Arrays(const std::vector<Bytes>& all, size_t faulty, Fault fault) {
    for (size_t i = 0; i < all.size(); ++i) {
      const size_t missing = i == faulty && fault != Fault::kNone ? all[i].element : 0;
      void* memory = nullptr;
      check(cudaMalloc(&memory, all[i].size - (fault == Fault::kShort ? missing : 0)));
      memory_.push_back(memory);
      if (all[i].host) check(cudaMemcpy(memory, all[i].host, all[i].size - missing, cudaMemcpyHostToDevice));
    }
  }
  ~Arrays() {
    for (void* memory : memory_) cudaFree(memory);
  }
  Arrays(const Arrays&) = delete;
  Arrays& operator=(const Arrays&) = delete;

  template <typename T = void>
  T* get(size_t i) const {
    return static_cast<T*>(memory_[i]);
  }

 private:
  std::vector<void*> memory_;
};

// Runs `launch` with every fault of every array.
template <typename Launch>
void expect_every_fault_is_found(const std::vector<Bytes>& all, Launch launch) {
  {
    const Arrays arrays(all, 0, Fault::kNone);
    launch(arrays);
    ASSERT_FALSE(was_stopped()) << "without a fault: " << gpu_emulator::last_launch().violation;
  }
  for (size_t i = 0; i < all.size(); ++i) {
    for (Fault fault : {Fault::kShort, Fault::kUnwritten}) {
      if (fault == Fault::kUnwritten && !all[i].host) continue;
      SCOPED_TRACE(std::string(all[i].name) + (fault == Fault::kShort ? " is too short" : " is not all written"));
      const Arrays arrays(all, i, fault);
      launch(arrays);
      EXPECT_TRUE(was_stopped());
    }
  }
}

class EmulatedCompressFaults : public testing::TestWithParam<CompressCase> {};

TEST_P(EmulatedCompressFaults, AreFound) {
  with_16bit(GetParam().dtype, [&](auto element) {
    using T = decltype(element);
    const CompressCase& which = GetParam();
    for (const bool padded_values : {false, true}) {
      const int64_t rows = 65;
      const CompressShape shape{rows,  160, padded_values ? metadata_rows(which.layout, rows) : rows, true, true,
                                false, 0};
      const CompressProblem<T> problem(which, shape, 3);
      std::vector<Bytes> arrays = {{"x", problem.x.data(), problem.x.size() * sizeof(T), sizeof(T)},
                                   {"scale", problem.scale.data(), problem.scale.size() * 4, 4},
                                   {"values", nullptr, problem.values.size(), which.quantized() ? 1u : 2u},
                                   {"metadata", nullptr, problem.metadata.size(), 1}};
      if (which.quantized()) {
        arrays.push_back({"smooth", problem.smooth.data(), problem.smooth.size() * 4, 4});
        arrays.push_back({"token_scale", nullptr, problem.token_scale.size() * 4, 4});
      }
      expect_every_fault_is_found(arrays, [&](const Arrays& a) {
        check(compress(which, shape,
                       {a.get(0), a.get<float>(1), which.quantized() ? a.get<float>(4) : nullptr, a.get(2),
                        a.get<uint8_t>(3), which.quantized() ? a.get<float>(5) : nullptr}));
      });
    }
  });
}

INSTANTIATE_TEST_SUITE_P(, EmulatedCompressFaults, testing::ValuesIn(compress_cases()), ByName());

class EmulatedGemmFaults : public EmulatedKernel {};

TEST_P(EmulatedGemmFaults, AreFound) {
  with_16bit(kernel().dtype, [&](auto element) {
    using T = decltype(element);
    const ProductShape shape{kernel().tile.m + 1, kernel().tile.n + kernel().out_features_multiple,
                             round_up(3 * kernel().tile.k + 1, kernel().in_features_multiple)};
    const Product<T> product(kernel(), kSparsePatterns[0], shape, 3);
    const DeviceProduct<T> device(product);
    device.compress();
    check(cudaDeviceSynchronize());
    const auto values = device.values.download(), metadata = device.metadata.download();
    const auto token_scale = device.token_scale.download();
    const bool quantized = product.which.quantized();
    std::vector<Bytes> arrays = {{"values", values.data(), values.size(), quantized ? 1 : sizeof(T)},
                                 {"metadata", metadata.data(), metadata.size(), 1},
                                 {"weight", product.weight.data(), product.weight.size(), quantized ? 1 : sizeof(T)},
                                 {"bias", product.bias.data(), product.bias.size() * sizeof(T), sizeof(T)},
                                 {"output", nullptr, product.rows * shape.n * sizeof(T), sizeof(T)}};
    if (quantized) {
      arrays.push_back({"token_scale", token_scale.data(), token_scale.size() * 4, 4});
      arrays.push_back({"weight_scale", product.weight_scale.data(), product.weight_scale.size() * 4, 4});
    }
    // A workspace of 0 bytes is none that could be too short.
    ASSERT_EQ(kernel().workspace_bytes(device.args), 0u);
    expect_every_fault_is_found(arrays, [&](const Arrays& a) {
      cuda::SparseGemmArgs args = device.args;
      args.values = a.get(0), args.metadata = a.get<uint8_t>(1), args.weight = a.get(2), args.bias = a.get(3);
      args.output = a.get(4);
      if (quantized) args.token_scale = a.get<float>(5), args.weight_scale = a.get<float>(6);
      ASSERT_EQ(kernel().run(args, nullptr, nullptr), cuda::GemmStatus::kOk);
    });
  });
}

AMBER_INSTANTIATE_KERNELS(EmulatedGemmFaults, 80, 90);

}  // namespace
