// Holds our metadata addresses against the layout functions of CuTe (SM90) and CUTLASS (SM80).
#include <gtest/gtest.h>

#include <vector>

#include "amber/metadata.h"
#include "cute/tensor.hpp"
#include "cutlass/gemm/collective/builders/sm90_sparse_config.inl"
#include "cutlass/layout/matrix.h"
#include "cutlass/tensor_ref.h"
#include "cutlass/util/host_reorder.h"

namespace {

using amber::MetadataLayout;
using amber::nibble_address;

template <typename Element, int TileK>
void check_sm90(MetadataLayout layout) {
  using Config = cutlass::Sm90GemmSparseConfig<cute::sparse_elem<2, Element>, cute::GMMA::Major::K,
                                               cute::sparse_elem<8, uint8_t>, cute::Int<TileK>>;
  for (int rows : {1, 63, 64, 65, 300}) {
    for (int cols : {256, 512, 1536}) {
      const auto cute_layout = Config::fill_layoutE(cute::make_shape(rows, 128, cols, 1));
      const int64_t padded_rows = amber::metadata_rows(layout, rows);
      ASSERT_EQ(static_cast<int64_t>(cute::cosize(cute_layout)) / 8, amber::metadata_bytes(layout, rows, cols));
      for (int t = 0; t < rows; ++t) {
        for (int k = 0; k < cols; k += 4) {
          // CuTe counts logical elements, one bit each.
          const int64_t bit = cute_layout(t, k, 0);
          const auto address = nibble_address(layout, t, k, padded_rows);
          ASSERT_EQ(address.byte, bit / 8) << "t " << t << " k " << k;
          ASSERT_EQ(address.shift, bit % 8) << "t " << t << " k " << k;
        }
      }
    }
  }
}

TEST(MetadataAgainstCute, Sm90Bf16TileK128) { check_sm90<cute::bfloat16_t, 128>(MetadataLayout::kSm90_16bit); }
TEST(MetadataAgainstCute, Sm90Fp16TileK128) { check_sm90<cute::half_t, 128>(MetadataLayout::kSm90_16bit); }
TEST(MetadataAgainstCute, Sm90Int8TileK128) { check_sm90<int8_t, 128>(MetadataLayout::kSm90_8bit); }
TEST(MetadataAgainstCute, Sm90E4m3TileK128) { check_sm90<cute::float_e4m3_t, 128>(MetadataLayout::kSm90_8bit); }

// Words of E, numbered, through CUTLASS' own reorder into its interleaved layout.
template <typename Word>
void check_sm80(MetadataLayout layout) {
  const int columns_per_word = sizeof(Word) == 2 ? 16 : 32;
  for (int rows : {32, 64, 160}) {
    for (int cols : {128, 512}) {
      const int words = cols / columns_per_word;
      const cutlass::gemm::GemmCoord problem(rows, 1, words);
      std::vector<Word> source(rows * words), reordered(rows * words);
      for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<Word>(i);
      using Interleaved = cutlass::layout::ColumnMajorInterleaved<2>;
      cutlass::TensorRef<Word, cutlass::layout::RowMajor> source_ref(source.data(), words);
      cutlass::TensorRef<Word, Interleaved> reordered_ref(reordered.data(), Interleaved::packed({rows, words}));
      cutlass::reorder_meta(reordered_ref, source_ref, problem);
      for (int t = 0; t < rows; ++t) {
        for (int k = 0; k < cols; k += 4) {
          const auto address = nibble_address(layout, t, k, amber::metadata_rows(layout, rows));
          const Word word = reordered[address.byte / sizeof(Word)];
          ASSERT_EQ(word, static_cast<Word>(t * words + k / columns_per_word)) << "t " << t << " k " << k;
          const int bit = static_cast<int>(address.byte % sizeof(Word)) * 8 + address.shift;
          ASSERT_EQ(bit, k % columns_per_word) << "t " << t << " k " << k;
        }
      }
    }
  }
}

TEST(MetadataAgainstCutlass, Sm80_16bit) { check_sm80<uint16_t>(MetadataLayout::kSm80_16bit); }
TEST(MetadataAgainstCutlass, Sm80_8bit) { check_sm80<uint32_t>(MetadataLayout::kSm80_8bit); }

}  // namespace
