// Holds our metadata addresses against the layout functions of CuTe (SM90, SM100) and CUTLASS (SM80).
#include <gtest/gtest.h>

#include <vector>

#include "amber/metadata.h"
#include "cute/tensor.hpp"
#include "cutlass/gemm/collective/builders/sm1xx_sparse_config.inl"
#include "cutlass/gemm/collective/builders/sm90_sparse_config.inl"
#include "cutlass/layout/matrix.h"
#include "cutlass/tensor_ref.h"
#include "cutlass/util/host_reorder.h"

namespace {

using amber::MetadataLayout;
using amber::nibble_address;

template <typename Element, int TileK>
using Sm90Config = cutlass::Sm90GemmSparseConfig<cute::sparse_elem<2, Element>, cute::GMMA::Major::K,
                                                 cute::sparse_elem<8, uint8_t>, cute::Int<TileK>>;
template <typename Element>
using Sm100Config = cutlass::Sm1xxGemmSparseConfig<cute::sparse_elem<2, Element>, cutlass::layout::RowMajor,
                                                   cute::sparse_elem<8, uint8_t>>;

template <typename Config>
void check_cute(MetadataLayout layout) {
  for (int rows : {1, 63, 64, 65, 128, 130, 300}) {
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

TEST(MetadataAgainstCute, Sm90Bf16TileK128) {
  check_cute<Sm90Config<cute::bfloat16_t, 128>>(MetadataLayout::kSm90_16bit);
}
TEST(MetadataAgainstCute, Sm90Fp16TileK128) { check_cute<Sm90Config<cute::half_t, 128>>(MetadataLayout::kSm90_16bit); }
TEST(MetadataAgainstCute, Sm90Int8TileK128) { check_cute<Sm90Config<int8_t, 128>>(MetadataLayout::kSm90_8bit); }
TEST(MetadataAgainstCute, Sm90E4m3TileK128) {
  check_cute<Sm90Config<cute::float_e4m3_t, 128>>(MetadataLayout::kSm90_8bit);
}

TEST(MetadataAgainstCute, Sm100Bf16) { check_cute<Sm100Config<cute::bfloat16_t>>(MetadataLayout::kSm100_16bit); }
TEST(MetadataAgainstCute, Sm100Fp16) { check_cute<Sm100Config<cute::half_t>>(MetadataLayout::kSm100_16bit); }
TEST(MetadataAgainstCute, Sm100Int8) { check_cute<Sm100Config<int8_t>>(MetadataLayout::kSm100_8bit); }
TEST(MetadataAgainstCute, Sm100E4m3) { check_cute<Sm100Config<cute::float_e4m3_t>>(MetadataLayout::kSm100_8bit); }

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
