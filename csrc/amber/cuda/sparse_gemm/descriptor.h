// How an instantiation describes itself: what follows from its operands is the same on every architecture.
#pragma once

#include <algorithm>

#include "amber/cuda/compress/prune_compress_args.h"
#include "amber/cuda/compress/quantize_compress_args.h"
#include "amber/cuda/sparse_gemm/sparse_gemm.h"

namespace amber::cuda {

// `in_features_multiple` is the GEMM's own; the compressing kernel may need more.
constexpr SparseGemmDescriptor describe_sparse_gemm(const char* name, int arch, Operands operands, DType dtype,
                                                    GemmTile tile, int64_t shared_memory, MetadataLayout layout,
                                                    int64_t in_features_multiple, int64_t out_features_multiple,
                                                    bool padded_rows) {
  const bool quantized = operands != Operands::k16bit;
  const int64_t columns = quantized ? kQuantizeColumns : kCompressColumns;
  const int64_t copies_columns = quantized ? kQuantizeColumns : kCompressCopiesColumns;
  return {name,
          arch,
          operands,
          dtype,
          tile,
          shared_memory,
          layout,
          std::max(columns, in_features_multiple),
          std::max(copies_columns, in_features_multiple),
          quantized ? kMaxQuantizeColumns : kUnlimited,
          out_features_multiple,
          quantized,  // quantize_compress rescales in the token's scale; prune_compress does not
          padded_rows};
}

}  // namespace amber::cuda
