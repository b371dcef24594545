// Compression on a GPU, for every pattern, dtype, layout of E and kind of operands: bit for bit against the CPU.
#include <set>

#include "cases/compress.h"
#include "support.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

template <typename T>
void check_shape(const CompressCase& which, const CompressShape& shape) {
  SCOPED_TRACE(testing::Message() << "[" << shape.rows << ", " << shape.cols << "] value rows " << shape.value_rows
                                  << " scaled " << shape.scaled << " smoothed " << shape.smoothed << " rescaled "
                                  << shape.rescaled << " offset " << shape.offset);
  const CompressProblem<T> problem(which, shape, static_cast<unsigned>(shape.rows + shape.cols));
  const DeviceArray<T> x(problem.x, shape.offset);
  const DeviceArray<float> scale(problem.scale, shape.offset), smooth(problem.smooth, shape.offset),
      token_scale(problem.token_scale.size(), shape.offset);
  const DeviceArray<uint8_t> values(problem.values.size(), shape.offset),
      metadata(problem.metadata.size(), shape.offset);
  check(compress(which, shape, {x.get(), scale.get(), smooth.get(), values.get(), metadata.get(), token_scale.get()}));
  EXPECT_EQ(values.download(), problem.values);
  EXPECT_EQ(metadata.download(), problem.metadata);
  if (which.quantized()) {
    // With the rescale, moments are summed in another order.
    expect_scales(token_scale.download(), problem.token_scale, shape.rescaled ? 1e-6f : 0.0f);
  }
}

// Rows around the kernels' groups of 8, 16, 32 and 64, and columns from one multiple on to around the layouts' 128 and
// the copies' 256 and 512. Every number of rows and of columns occurs; the options change from shape to shape.
std::vector<CompressShape> shapes_of(const CompressCase& which) {
  const int64_t c = which.multiple();
  const int64_t rows[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 1000, 2049, 4097};
  std::set<int64_t> cols{c, 2 * c, 3 * c, 5 * c, 4096};
  for (int64_t edge : {128, 256, 512, 1024}) cols.insert({edge - c, edge, edge + c});
  const std::vector<int64_t> all(cols.begin(), cols.end());

  std::vector<CompressShape> shapes;
  const auto add = [&](int64_t t, int64_t k) {
    const auto i = static_cast<int>(shapes.size());
    const int64_t value_rows[] = {t, metadata_rows(which.layout, t), metadata_rows(which.layout, t) + 7};
    shapes.push_back({t, k, value_rows[i % 3], i % 2 == 0, which.quantized() && i / 2 % 2 == 0,
                      which.quantized() && i / 4 % 2 == 0, static_cast<size_t>(i % 5 * 16)});
  };
  for (size_t i = 0; i < 3 * all.size(); ++i) add(rows[i % 18], all[i % all.size()]);
  for (size_t i = 18; i < std::size(rows); ++i) {
    for (size_t j = 0; j < 3; ++j) add(rows[i], all[j]);
  }
  // A thread of the quantising kernel takes a second chunk beyond K = 16384, its block is full at 32768.
  for (int64_t k : {int64_t{14336}, int64_t{16384}, 16384 + c, cuda::kMaxQuantizeColumns}) {
    for (int64_t t : {1, 3}) add(t, k);
  }
  return shapes;
}

class GpuCompress : public testing::TestWithParam<CompressCase> {
 protected:
  void SetUp() override { AMBER_NEEDS_GPU(); }
};

TEST_P(GpuCompress, Shapes) {
  for (const CompressShape& shape : shapes_of(GetParam())) {
    with_16bit(GetParam().dtype, [&](auto element) { check_shape<decltype(element)>(GetParam(), shape); });
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(, GpuCompress, testing::ValuesIn(compress_cases()), ByName());

TEST(GpuCompressRefusals, ColumnsBetweenMultiplesInEveryCase) {
  for (const CompressCase& which : compress_cases()) {
    SCOPED_TRACE(which.name());
    const int64_t c = which.multiple();
    for (int64_t cols : {c / 2, c + c / 2, 128 + c / 2, c + 8, 4 * c + 1}) {
      EXPECT_EQ(compress(which, {4, cols, 4, false, false, false, 0}, {}), cudaErrorInvalidValue) << cols;
    }
    EXPECT_EQ(compress(which, {4, 4 * c, 3, false, false, false, 0}, {}), cudaErrorInvalidValue) << "value_rows";
    EXPECT_EQ(compress(which, {0, 4 * c, 0, false, false, false, 0}, {}), cudaSuccess) << "launches nothing";
  }
}

TEST(GpuCompressRefusals, OtherDtypesLayoutsAndPatterns) {
  CompressShape shape{4, 64, 4, false, false, false, 0};
  const CompressCase wide{cuda::Operands::k16bit, DType::kFloat16, MetadataLayout::kSm90_16bit, kSparsePatterns[0]};
  const CompressCase narrow{cuda::Operands::kInt8, DType::kFloat16, MetadataLayout::kSm90_8bit, kSparsePatterns[0]};
  for (CompressCase which : {wide, narrow}) {
    which.dtype = DType::kFloat32;
    EXPECT_EQ(compress(which, shape, {}), cudaErrorInvalidValue);
  }
  CompressCase crossed = wide;
  crossed.layout = narrow.layout;
  EXPECT_EQ(compress(crossed, shape, {}), cudaErrorInvalidValue);
  crossed = narrow, crossed.layout = wide.layout;
  EXPECT_EQ(compress(crossed, shape, {}), cudaErrorInvalidValue);
  for (CompressCase which : {wide, narrow}) {
    which.sparse.pattern = {1, 4};
    EXPECT_EQ(compress(which, shape, {}), cudaErrorInvalidValue);
  }
  shape.cols = cuda::kMaxQuantizeColumns + cuda::kQuantizeColumns;
  EXPECT_EQ(compress(narrow, shape, {}), cudaErrorInvalidValue);
}

}  // namespace
