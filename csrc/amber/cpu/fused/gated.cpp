#include "amber/cpu/fused/gated.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "amber/cpu/fused/elementwise.h"
#include "amber/cpu/prune/prune.h"
#include "amber/cpu/quantize/quantize.h"

namespace amber::cpu {
namespace {

// Products of so many bytes are made before they are pruned: they fit a core's second cache.
constexpr int64_t kBlockBytes = 128 * 1024;

template <typename T>
T* advance(T* pointer, int64_t bytes) {
  using Byte = std::conditional_t<std::is_const_v<T>, const uint8_t, uint8_t>;
  return pointer ? reinterpret_cast<T*>(reinterpret_cast<Byte*>(pointer) + bytes) : nullptr;
}

// consume(product, first row, rows) for block after block of products [rows, cols].
template <typename Consume>
void for_products(Isa isa, const GatedRows& of, DType dtype, int64_t cols, int64_t begin, int64_t end,
                  Consume consume) {
  const int64_t row_bytes = cols * element_bytes(dtype);
  if (row_bytes == 0 || begin >= end) return;
  const int64_t block = std::min(end - begin, std::max<int64_t>(1, kBlockBytes / row_bytes));
  std::vector<uint8_t> product(block * row_bytes);
  for (int64_t t = begin; t < end; t += block) {
    const int64_t rows = std::min(block, end - t), at = t * row_bytes;
    elementwise_steps(isa).multiply(advance(of.silu, at), advance(of.up, at), dtype, rows * cols, product.data());
    consume(product.data(), t, rows);
  }
}

}  // namespace

void prune_gated_rows_with(Isa isa, const GatedRows& of, const PruneArgs& then, int64_t row_begin, int64_t row_end) {
  for_products(isa, of, then.dtype, then.cols, row_begin, row_end,
               [&](const void* product, int64_t first, int64_t rows) {
                 PruneArgs block = then;
                 block.x = product;
                 block.rows = rows;
                 block.pruned = advance(then.pruned, first * then.cols * element_bytes(then.dtype));
                 block.mask = advance(then.mask, first * then.cols);
                 prune_rows_with(isa, block, 0, rows);
               });
}

void quantize_gated_rows_with(Isa isa, const GatedRows& of, const QuantizeArgs& then, int64_t row_begin,
                              int64_t row_end) {
  for_products(isa, of, then.dtype, then.cols, row_begin, row_end,
               [&](const void* product, int64_t first, int64_t rows) {
                 QuantizeArgs block = then;
                 block.x = product;
                 block.rows = rows;
                 block.values = advance(then.values, first * then.cols);
                 block.token_scale = then.token_scale + first;
                 quantize_rows_with(isa, block, 0, rows);
               });
}

void prune_gated_rows(const GatedRows& of, const PruneArgs& then, int64_t row_begin, int64_t row_end) {
  prune_gated_rows_with(best_isa(), of, then, row_begin, row_end);
}

void quantize_gated_rows(const GatedRows& of, const QuantizeArgs& then, int64_t row_begin, int64_t row_end) {
  quantize_gated_rows_with(best_isa(), of, then, row_begin, row_end);
}

}  // namespace amber::cpu
