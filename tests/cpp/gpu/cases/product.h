// A sparse linear layer on a GPU, compression included, held against fp64.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "amber/cpu/prune/prune.h"
#include "amber/cpu/quantize/quantize.h"
#include "cases/compress.h"
#include "cases/reference.h"
#include "support.h"

namespace amber::gpu_test {

struct ProductShape {
  int64_t t, n, k;
  bool biased = true, scaled = true;
  bool smoothed = true, rescaled = false;  // 8-bit operands only
  size_t offset = 0;                       // of every array, in bytes
  int multiprocessors = 0;                 // of the device, as the kernel is told; 0: all
  cuda::RasterOrder raster_order = cuda::RasterOrder::kHeuristic;
  int max_swizzle = 1;
};

inline std::string describe(const ProductShape& s) {
  return (testing::Message() << "T " << s.t << " N " << s.n << " K " << s.k << " bias " << s.biased << " scale "
                             << s.scaled << " smooth " << s.smoothed << " rescale " << s.rescaled << " offset "
                             << s.offset << " multiprocessors " << s.multiprocessors << " raster order "
                             << static_cast<int>(s.raster_order))
      .GetString();
}

// What the compression before a kernel is.
inline CompressCase compression_of(const cuda::SparseGemmKernel& kernel, const SparsePattern& sparse) {
  return {kernel.operands, kernel.dtype, kernel.layout, sparse};
}

template <typename T>
struct Product {
  const cuda::SparseGemmKernel& kernel;
  const CompressCase which;
  const ProductShape shape;
  const int64_t rows, wide_k;  // rows of values and output
  std::vector<T> x, bias;
  std::vector<float> scale, smooth, weight_scale;
  std::vector<uint8_t> weight;  // [n, wide_k] in the kernel's operands
  Reference reference;

  Product(const cuda::SparseGemmKernel& kernel, const SparsePattern& sparse, const ProductShape& shape, unsigned seed)
      : kernel(kernel),
        which(compression_of(kernel, sparse)),
        shape(shape),
        rows(kernel.padded_rows ? metadata_rows(kernel.layout, shape.t) : shape.t),
        wide_k(widened_cols(shape.k, sparse.extra_windows)),
        x(random_tokens<T>(shape.t, shape.k, seed)),
        bias(random_normal<T>(shape.n, seed + 2)),
        scale(random_factors(shape.k, seed + 3)),
        smooth(random_factors(shape.k, seed + 4)),
        weight_scale(random_factors(shape.n, seed + 5)),
        reference{shape.t, shape.n, shape.k, std::vector<float>(shape.t * shape.k), {}, {}, {}, {}, 0.0, 0.0} {
    for (float& s : weight_scale) s /= 64;  // so that no output overflows fp16
    if (shape.biased) {
      for (T b : bias) reference.bias.push_back(to_float(b));
    }
    which.quantized() ? make_8bit(seed + 6) : make_16bit(seed + 6);
  }

  CompressShape compress_shape() const {
    return {shape.t,
            shape.k,
            rows,
            shape.scaled,
            which.quantized() && shape.smoothed,
            which.quantized() && shape.rescaled,
            shape.offset};
  }

 private:
  void make_16bit(unsigned seed) {
    const auto narrow = random_normal<T>(shape.n * shape.k, seed);
    for (T w : narrow) reference.weight.push_back(to_float(w));
    const auto wide = widen_weight(narrow, shape.k, which.sparse.pattern);
    weight.resize(wide.size() * sizeof(T));
    std::memcpy(weight.data(), wide.data(), weight.size());
    std::vector<T> pruned(x.size());
    cpu::prune_rows({x.data(), shape.scaled ? scale.data() : nullptr, pruned.data(), nullptr, shape.t, shape.k,
                     which.sparse.pattern, which.dtype, Rescale::kNone},
                    0, shape.t);
    for (size_t i = 0; i < pruned.size(); ++i) reference.x[i] = to_float(pruned[i]);
    // fp32 accumulation of up to K products.
    reference.product_error = static_cast<double>(shape.k) * 0x1p-24;
  }

  void make_8bit(unsigned seed) {
    std::mt19937 rng(seed);
    std::vector<uint8_t> narrow(shape.n * shape.k), pruned(x.size());
    for (uint8_t& w : narrow) {
      w = which.type() == QuantizedType::kInt8 ? static_cast<uint8_t>(static_cast<int>(rng() % 255) - 127)
                                               : to_e4m3(static_cast<float>(rng() % 897) - 448.0f, 1.0f);
      reference.weight.push_back(operand_value(w, which.operands));
    }
    weight = widen_weight(narrow, shape.k, which.sparse.pattern);
    reference.token_scale.resize(shape.t);
    reference.weight_scale = weight_scale;
    cpu::quantize_rows({x.data(), shape.smoothed ? smooth.data() : nullptr, shape.scaled ? scale.data() : nullptr,
                        pruned.data(), reference.token_scale.data(), shape.t, shape.k, which.sparse.pattern,
                        which.dtype, shape.rescaled ? Rescale::kVariance : Rescale::kNone, which.type()},
                       0, shape.t);
    for (size_t i = 0; i < pruned.size(); ++i) reference.x[i] = operand_value(pruned[i], which.operands);
    // int8 products are exact, so only the scaling rounds; e4m3 may use the fast accumulator. With the rescale,
    // moments are summed in another order.
    reference.product_error = which.type() == QuantizedType::kInt8 ? 0.0 : 0x1p-10;
    reference.scale_error = 0x1p-21 + (shape.rescaled ? 1e-6 : 0.0);
  }
};

// A product's arrays on the device.
template <typename T>
struct DeviceProduct {
  const Product<T>& host;
  DeviceArray<T> x, bias, output;
  DeviceArray<float> scale, smooth, token_scale, weight_scale;
  DeviceArray<uint8_t> weight, values, metadata;
  cuda::SparseGemmArgs args;
  std::unique_ptr<DeviceArray<uint8_t>> workspace;

  explicit DeviceProduct(const Product<T>& host)
      : host(host),
        x(host.x, host.shape.offset),
        bias(host.bias, host.shape.offset),
        output(host.rows * host.shape.n, host.shape.offset),
        scale(host.scale, host.shape.offset),
        smooth(host.smooth, host.shape.offset),
        token_scale(host.rows, host.shape.offset),
        weight_scale(host.weight_scale, host.shape.offset),
        weight(host.weight, host.shape.offset),
        values(host.rows * host.wide_k / 2 * (host.which.quantized() ? 1 : sizeof(T)), host.shape.offset),
        metadata(metadata_bytes(host.kernel.layout, host.shape.t, host.wide_k), host.shape.offset),
        args{values.get(),
             metadata.get(),
             weight.get(),
             host.shape.biased ? bias.get() : nullptr,
             output.get(),
             host.shape.t,
             host.shape.n,
             host.wide_k,
             host.shape.multiprocessors > 0 ? host.shape.multiprocessors
                                            : device_attribute(cudaDevAttrMultiProcessorCount),
             host.which.quantized() ? token_scale.get() : nullptr,
             host.which.quantized() ? weight_scale.get() : nullptr,
             host.shape.raster_order,
             host.shape.max_swizzle},
        workspace(std::make_unique<DeviceArray<uint8_t>>(host.kernel.workspace_bytes(args))) {}

  void compress(cudaStream_t stream = nullptr) const {
    check(gpu_test::compress(host.which, host.compress_shape(),
                             {x.get(), scale.get(), smooth.get(), values.get(), metadata.get(), token_scale.get()},
                             stream));
  }
  cuda::GemmStatus multiply(cudaStream_t stream = nullptr) const {
    return host.kernel.run(args, workspace->get(), stream);
  }
  void run(cudaStream_t stream = nullptr) const {
    compress(stream);
    ASSERT_EQ(multiply(stream), cuda::GemmStatus::kOk);
  }
};

inline void check_product(const cuda::SparseGemmKernel& kernel, const SparsePattern& sparse, const ProductShape& shape,
                          unsigned seed) {
  SCOPED_TRACE(std::string(kernel.name) + " " + sparse.name + " " + describe(shape));
  with_16bit(kernel.dtype, [&](auto element) {
    const Product<decltype(element)> product(kernel, sparse, shape, seed);
    const DeviceProduct<decltype(element)> device(product);
    device.run();
    check(cudaDeviceSynchronize());
    product.reference.expect(device.output.download());
  });
}

}  // namespace amber::gpu_test
