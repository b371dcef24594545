// Compression of rows silu(gate) * up on a GPU: bit for bit what the CPU makes of the rounded rows.
#include <cmath>

#include "amber/cuda/compress/sources/silu_mul.h"
#include "cases/compress.h"
#include "support.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

// All NaNs alike: rounding makes another one on a GPU.
template <typename T>
std::vector<uint8_t> with_one_nan(std::vector<uint8_t> bytes, const CompressCase& which) {
  if (which.quantized()) return bytes;
  for (size_t i = 0; i < bytes.size(); i += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes.data() + i, sizeof value);
    if (std::isnan(to_float(value))) std::memset(bytes.data() + i, 0x7f, sizeof value);
  }
  return bytes;
}

template <typename T>
void check_shape(const CompressCase& which, const CompressShape& shape) {
  SCOPED_TRACE(testing::Message() << "[" << shape.rows << ", " << shape.cols << "] value rows " << shape.value_rows
                                  << " scaled " << shape.scaled << " smoothed " << shape.smoothed << " rescaled "
                                  << shape.rescaled << " offset " << shape.offset);
  const auto seed = static_cast<unsigned>(shape.rows + shape.cols);
  const std::vector<T> gate = random_tokens<T>(shape.rows, shape.cols, seed);
  const std::vector<T> up = random_tokens<T>(shape.rows, shape.cols, seed + 7);
  std::vector<T> rows(gate.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = cuda::silu_mul(gate[i], up[i]);
  const CompressProblem<T> problem(which, shape, rows, seed);

  const DeviceArray<T> x(gate, shape.offset), other(up, shape.offset);
  const DeviceArray<float> scale(problem.scale, shape.offset), smooth(problem.smooth, shape.offset),
      token_scale(problem.token_scale.size(), shape.offset);
  const DeviceArray<uint8_t> values(problem.values.size(), shape.offset),
      metadata(problem.metadata.size(), shape.offset);
  check(compress(which, shape,
                 {x.get(), scale.get(), smooth.get(), values.get(), metadata.get(), token_scale.get(), other.get()}));
  EXPECT_EQ(with_one_nan<T>(values.download(), which), with_one_nan<T>(problem.values, which));
  EXPECT_EQ(metadata.download(), problem.metadata);
  // With the rescale, moments are summed in another order.
  if (which.quantized()) expect_scales(token_scale.download(), problem.token_scale, shape.rescaled ? 1e-6f : 0.0f);
}

class GpuSiluMulCompress : public testing::TestWithParam<CompressCase> {
 protected:
  void SetUp() override { AMBER_NEEDS_GPU(); }
};

// Rows around the layouts' tiles and columns around their multiples. That all of a kernel is walked through, whatever
// makes its rows, is tested with rows in memory (compress_test.cpp).
TEST_P(GpuSiluMulCompress, Shapes) {
  const CompressCase& which = GetParam();
  const int64_t c = which.multiple();
  const int64_t cols[] = {c, 128 + c, 512, 3 * c, 512 + c};
  int i = 0;
  for (int64_t rows : {1, 63, 64, 65, 300}) {
    const int64_t padded = metadata_rows(which.layout, rows);
    const CompressShape shape{rows,
                              cols[i],
                              i % 2 == 0 ? rows : padded,
                              i % 2 == 0,
                              which.quantized() && i / 2 % 2 == 0,
                              which.quantized() && i % 3 == 1,
                              static_cast<size_t>(i % 3 * 16)};
    with_16bit(which.dtype, [&](auto element) { check_shape<decltype(element)>(which, shape); });
    if (HasFailure()) return;
    ++i;
  }
  // A thread of the quantising kernel takes a second chunk beyond K = 16384.
  const CompressShape wide{2, which.quantized() ? 16384 + c : 4096, 2, true, which.quantized(), false, 0};
  with_16bit(which.dtype, [&](auto element) { check_shape<decltype(element)>(which, wide); });
}

INSTANTIATE_TEST_SUITE_P(, GpuSiluMulCompress, testing::ValuesIn(compress_cases()), ByName());

}  // namespace
