// Our compressor against CUTLASS' StructuredSparseCompressor, byte for byte, on input that is 2:4.
#include "amber/cuda/compress/prune_compress.h"
#include "amber/cuda/masked/prune.h"
#include "cutlass/gemm/collective/collective_builder.hpp"
#include "cutlass/transform/device/transform_universal_adapter.hpp"
#include "cutlass/transform/kernel/sparse_gemm_compressor.hpp"
#include "cutlass/util/packed_stride.hpp"
#include "support.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

TEST(GpuCompressor, EqualsCutlassByteForByte_sm90) {
  AMBER_NEEDS_GPU();
  if (device_arch() != 90) GTEST_SKIP() << "CUTLASS' SM90 compressor needs SM90; this is " << device_arch();
  using Element = cutlass::bfloat16_t;
  using SparseConfig = cutlass::Sm90GemmSparseConfig<cute::sparse_elem<2, Element>, cute::GMMA::Major::K,
                                                     cute::sparse_elem<8, uint8_t>, cute::_128>;
  using Shape = cute::Shape<int, int, int, int>;
  using RowMajor = cutlass::layout::RowMajor;
  using Utility = cutlass::transform::kernel::StructuredSparseCompressorUtility<Shape, Element, RowMajor, SparseConfig>;
  using Compressor =
      cutlass::transform::device::TransformUniversalAdapter<cutlass::transform::kernel::StructuredSparseCompressor<
          Shape, Element, RowMajor, SparseConfig, cutlass::arch::Sm90>>;

  for (int rows : {64, 128, 192}) {
    for (int cols : {128, 1024}) {
      SCOPED_TRACE(testing::Message() << "[" << rows << ", " << cols << "]");
      // Values well away from zero: CUTLASS takes the nonzeros of its input, we the largest two.
      auto x = random_normal<BFloat16>(static_cast<size_t>(rows) * cols, 3);
      for (auto& value : x) value = from_float<BFloat16>(to_float(value) + (to_float(value) < 0 ? -1.0f : 1.0f));
      const DeviceArray<BFloat16> dense(x), pruned(x.size());
      check(amber::cuda::prune(
          {dense.get(), nullptr, pruned.get(), nullptr, rows, cols, {2, 4}, DType::kBFloat16, Rescale::kNone},
          nullptr));

      const Shape problem = cute::make_shape(rows, 128, cols, 1);
      const auto stride =
          cutlass::make_cute_packed_stride(cutlass::gemm::TagToStrideA_t<RowMajor>{}, cute::make_shape(rows, cols, 1));
      Utility utility(problem, stride);
      ASSERT_EQ(utility.get_compressed_tensor_A_bytes(), x.size());
      const DeviceArray<uint8_t> want_values(utility.get_compressed_tensor_A_bytes());
      const DeviceArray<uint8_t> want_metadata(utility.get_tensor_E_bytes());
      cutlass::KernelHardwareInfo hardware;
      hardware.sm_count = device_attribute(cudaDevAttrMultiProcessorCount);
      typename Compressor::Arguments arguments{
          problem, {pruned.get(), stride, want_values.get(), want_metadata.get()}, {hardware}};
      Compressor compressor;
      const DeviceArray<uint8_t> workspace(Compressor::get_workspace_size(arguments));
      ASSERT_EQ(compressor.can_implement(arguments), cutlass::Status::kSuccess);
      ASSERT_EQ(compressor.initialize(arguments, workspace.get()), cutlass::Status::kSuccess);
      ASSERT_EQ(compressor.run(), cutlass::Status::kSuccess);

      const DeviceArray<uint8_t> values(x.size());
      const DeviceArray<uint8_t> metadata(metadata_bytes(MetadataLayout::kSm90_16bit, rows, cols));
      check(amber::cuda::prune_compress({dense.get(), nullptr, values.get(), metadata.get(), rows, cols, rows,
                                         DType::kBFloat16, MetadataLayout::kSm90_16bit},
                                        nullptr));
      EXPECT_EQ(values.download(), want_values.download());
      EXPECT_EQ(metadata.download(), want_metadata.download());
    }
  }
}

}  // namespace
