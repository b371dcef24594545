// Every way to compress tokens (operands, dtype, layout of E, pattern), and what each must give by the CPU's kernels.
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "amber/cpu/compress/compress.h"
#include "amber/cpu/compress/widen.h"
#include "amber/cpu/prune/prune.h"
#include "amber/cpu/quantize/quantize.h"
#include "amber/cuda/compress/prune_compress.h"
#include "amber/cuda/compress/quantize_compress.h"
#include "amber/cuda/compress/sources/silu_mul_compress.h"
#include "support.h"

namespace amber::gpu_test {

struct CompressCase {
  cuda::Operands operands;
  DType dtype;
  MetadataLayout layout;
  SparsePattern sparse;

  bool quantized() const { return operands != cuda::Operands::k16bit; }
  QuantizedType type() const { return operands == cuda::Operands::kE4m3 ? QuantizedType::kE4m3 : QuantizedType::kInt8; }
  // K is a multiple of this.
  int64_t multiple() const {
    return quantized()                 ? cuda::kQuantizeColumns
           : sparse.extra_windows == 0 ? cuda::kCompressColumns
                                       : cuda::kCompressCopiesColumns;
  }
  std::string name() const {
    const char* kernel = operands == cuda::Operands::k16bit  ? "prune"
                         : operands == cuda::Operands::kInt8 ? "int8"
                                                             : "e4m3";
    return kernel + ("_" + name_of(dtype)) + "_" + name_of(layout) + "_" + name_of(sparse);
  }
};

#if defined(AMBER_WITH_SM100)
inline constexpr bool kWithSm100 = true;
#else
inline constexpr bool kWithSm100 = false;
#endif

inline std::vector<CompressCase> compress_cases() {
  std::vector<CompressCase> cases;
  for (const SparsePattern& sparse : kSparsePatterns) {
    for (DType dtype : {DType::kFloat16, DType::kBFloat16}) {
      for (auto layout : {MetadataLayout::kSm80_16bit, MetadataLayout::kSm90_16bit, MetadataLayout::kSm100_16bit}) {
        if (layout == MetadataLayout::kSm100_16bit && !kWithSm100) continue;
        cases.push_back({cuda::Operands::k16bit, dtype, layout, sparse});
      }
      for (auto operands : {cuda::Operands::kInt8, cuda::Operands::kE4m3}) {
        for (auto layout : {MetadataLayout::kSm80_8bit, MetadataLayout::kSm90_8bit, MetadataLayout::kSm100_8bit}) {
          if (layout == MetadataLayout::kSm100_8bit && !kWithSm100) continue;
          cases.push_back({operands, dtype, layout, sparse});
        }
      }
    }
  }
  return cases;
}

struct CompressShape {
  int64_t rows, cols;
  int64_t value_rows;               // rows, or more
  bool scaled, smoothed, rescaled;  // the last two: 8-bit operands only
  size_t offset;                    // of every array, in bytes
};

// Tokens of one shape and what they compress to.
template <typename T>
struct CompressProblem {
  CompressCase which;
  CompressShape shape;
  std::vector<T> x;
  std::vector<float> scale, smooth, token_scale;  // the last: 0 past `rows`
  std::vector<uint8_t> values, metadata;

  CompressProblem(const CompressCase& which, const CompressShape& shape, unsigned seed)
      : CompressProblem(which, shape, random_tokens<T>(shape.rows, shape.cols, seed), seed) {}

  // Of given tokens.
  CompressProblem(const CompressCase& which, const CompressShape& shape, std::vector<T> tokens, unsigned seed)
      : which(which),
        shape(shape),
        x(std::move(tokens)),
        scale(random_factors(shape.cols, seed + 2)),
        smooth(random_factors(shape.cols, seed + 3)),
        token_scale(shape.value_rows, 0.0f) {
    const int64_t rows = shape.rows, cols = shape.cols, size = which.quantized() ? 1 : 2;
    const int extra = which.sparse.extra_windows;
    const int64_t wide_cols = widened_cols(cols, extra);
    const float* by = shape.scaled ? scale.data() : nullptr;
    std::vector<uint8_t> mask(rows * cols), dense(rows * cols * size), wide(rows * wide_cols * size),
        wide_mask(rows * wide_cols);
    cpu::prune_rows({x.data(), by, nullptr, mask.data(), rows, cols, which.sparse.pattern, which.dtype, Rescale::kNone},
                    0, rows);
    if (which.quantized()) {
      cpu::quantize_rows(
          {x.data(), shape.smoothed ? smooth.data() : nullptr, by, dense.data(), token_scale.data(), rows, cols,
           which.sparse.pattern, which.dtype, shape.rescaled ? Rescale::kVariance : Rescale::kNone, which.type()},
          0, rows);
    } else {
      std::memcpy(dense.data(), x.data(), dense.size());
    }
    values.resize(rows * wide_cols / 2 * size);
    metadata.resize(metadata_bytes(which.layout, rows, wide_cols));
    EXPECT_EQ(
        cpu::widen(dense.data(), mask.data(), rows, cols, static_cast<int>(size), extra, wide.data(), wide_mask.data()),
        Status::kOk);
    EXPECT_EQ(cpu::compress_2_4(wide.data(), wide_mask.data(), rows, wide_cols, static_cast<int>(size), which.layout,
                                values.data(), metadata.data()),
              Status::kOk);
    values.resize(shape.value_rows * wide_cols / 2 * size, 0);  // rows past `rows` are zeros
  }
};

// Where the kernel reads and writes; pointers that a kernel does not take are ignored.
struct CompressPointers {
  const void* x;
  const float *scale, *smooth;
  void* values;
  uint8_t* metadata;
  float* token_scale;
  const void* up = nullptr;  // rows are silu(x) * up, where it is there
};

inline cudaError_t compress(const CompressCase& which, const CompressShape& shape, const CompressPointers& at,
                            cudaStream_t stream = nullptr) {
  const float* scale = shape.scaled ? at.scale : nullptr;
  const float* smooth = shape.smoothed ? at.smooth : nullptr;
  if (!which.quantized()) {
    const cuda::PruneCompressArgs args{at.x,
                                       scale,
                                       at.values,
                                       at.metadata,
                                       shape.rows,
                                       shape.cols,
                                       shape.value_rows,
                                       which.dtype,
                                       which.layout,
                                       which.sparse.pattern,
                                       at.up};
    return at.up ? cuda::silu_mul_prune_compress(args, stream) : cuda::prune_compress(args, stream);
  }
  const cuda::QuantizeCompressArgs args{
      at.x,       smooth,           scale,       at.values,    at.metadata,  at.token_scale, shape.rows,
      shape.cols, shape.value_rows, which.dtype, which.layout, which.type(), shape.rescaled, which.sparse.pattern,
      at.up};
  return at.up ? cuda::silu_mul_quantize_compress(args, stream) : cuda::quantize_compress(args, stream);
}

// NaNs are equal to each other; `tolerance` is relative.
inline void expect_scales(const std::vector<float>& got, const std::vector<float>& want, float tolerance) {
  for (size_t t = 0; t < want.size(); ++t) {
    if (std::isnan(want[t])) {
      EXPECT_TRUE(std::isnan(got[t])) << t;
    } else {
      EXPECT_NEAR(got[t], want[t], want[t] * tolerance) << t;
    }
  }
}

}  // namespace amber::gpu_test
