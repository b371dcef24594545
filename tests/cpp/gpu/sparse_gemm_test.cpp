// Every sparse GEMM with every pattern, compression included, against fp64 products of the pruned input.
#include "amber/cuda/sparse_gemm/sparse_gemm.h"

#include <set>

#include "amber/cuda/sparse_gemm/refusal.h"
#include "cases/product.h"
#include "support.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;
using cuda::RasterOrder;
using cuda::SparseGemmKernel;

struct Instance {
  const SparseGemmKernel* kernel;
  SparsePattern sparse;

  std::string name() const { return kernel->name + ("_" + name_of(sparse)); }
};

std::vector<Instance> instances() {
  std::vector<Instance> all;
  for (const SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    for (const SparsePattern& sparse : kSparsePatterns) all.push_back({kernel, sparse});
  }
  return all;
}

std::string skip_reason(const SparseGemmKernel& kernel) {
  if (const std::string reason = no_gpu(); !reason.empty()) return reason;
  return kernel.runs_on(device_arch())
             ? ""
             : std::string(kernel.name) + " is not for compute capability " + std::to_string(device_arch() / 10) + "." +
                   std::to_string(device_arch() % 10);
}

class GpuSparseGemm : public testing::TestWithParam<Instance> {
 protected:
  void SetUp() override {
    if (const std::string reason = skip_reason(kernel()); !reason.empty()) GTEST_SKIP() << reason;
  }
  const SparseGemmKernel& kernel() const { return *GetParam().kernel; }
  int64_t in_multiple() const {
    return GetParam().sparse.extra_windows == 0 ? kernel().in_features_multiple : kernel().copies_in_features_multiple;
  }
};

// T, N and K from one multiple on, around the kernel's tile, and beyond its pipeline's depth. Every number occurs, and
// the other options change from shape to shape.
std::vector<ProductShape> shapes_of(const SparseGemmKernel& kernel, const SparsePattern& sparse, int64_t in_multiple) {
  const auto [m, n, k] = kernel.tile;
  const int64_t out = kernel.out_features_multiple, in = in_multiple;
  // Where padding ends: the tile, or what K is padded to before the copies.
  const int64_t edge = std::max<int64_t>(k, padded_cols(1, sparse.extra_windows));
  const std::set<int64_t> ks{in, 2 * in, 3 * in, edge - in, edge, edge + in, 9 * k, round_up(9 * k + 1, in)};
  const std::set<int64_t> ns{out, 2 * out, 3 * out, n - out, n, n + out, 2 * n + out};
  const std::set<int64_t> ts{1, 2, 16, 63, 64, 65, m - 1, m, m + 1, 2 * m + 1, 3 * m};
  std::vector<int64_t> in_features, out_features(ns.begin(), ns.end()), tokens(ts.begin(), ts.end());
  for (int64_t size : ks) {
    if (size > 0) in_features.push_back(size);
  }

  std::vector<ProductShape> shapes;
  const auto add = [&](int64_t t, int64_t n, int64_t k) {
    const auto i = static_cast<int>(shapes.size());
    const RasterOrder orders[] = {RasterOrder::kHeuristic, RasterOrder::kAlongM, RasterOrder::kAlongN};
    shapes.push_back({t, n, k, i % 2 == 0, i / 2 % 2 == 0, i / 4 % 2 == 0, i % 3 == 0 && kernel.rescales,
                      static_cast<size_t>(i % 5 * 16), i % 4 == 1 ? 2 : 0, orders[i % 3], i % 3 == 2 ? 8 : 1});
  };
  for (size_t i = 0; i < 2 * tokens.size(); ++i) {
    add(tokens[i % tokens.size()], out_features[i % out_features.size()], in_features[i % in_features.size()]);
  }
  for (int64_t t : {1000, 2049, 4097}) add(t, out, in);
  return shapes;
}

cuda::SparseProblem problem_of(const SparseGemmKernel& kernel, const SparsePattern& sparse, const ProductShape& shape) {
  return {
      kernel.arch, kernel.operands, kernel.dtype, sparse.pattern, shape.rescaled ? Rescale::kVariance : Rescale::kNone,
      shape.t,     shape.n,         shape.k};
}

TEST_P(GpuSparseGemm, Shapes) {
  const SparsePattern& sparse = GetParam().sparse;
  unsigned seed = 1;
  for (const ProductShape& shape : shapes_of(kernel(), sparse, in_multiple())) {
    ASSERT_EQ(cuda::refusal(kernel(), problem_of(kernel(), sparse, shape)), "") << describe(shape);
    check_product(kernel(), sparse, shape, ++seed);
    if (HasFailure()) return;
    // One step beside, the shape is refused.
    ProductShape beside = shape;
    beside.k += in_multiple() / 2;
    EXPECT_NE(cuda::refusal(kernel(), problem_of(kernel(), sparse, beside)), "") << describe(beside);
    beside.k = shape.k, beside.n += kernel().out_features_multiple / 2;
    EXPECT_NE(cuda::refusal(kernel(), problem_of(kernel(), sparse, beside)), "") << describe(beside);
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GpuSparseGemm);
INSTANTIATE_TEST_SUITE_P(, GpuSparseGemm, testing::ValuesIn(instances()), ByName());

class GpuSparseGemmSlow : public GpuSparseGemm {};

TEST_P(GpuSparseGemmSlow, LargeLayerInEveryRasterOrder) {
  for (auto order : {RasterOrder::kHeuristic, RasterOrder::kAlongM, RasterOrder::kAlongN}) {
    ProductShape shape{300, 1024, 14336};
    shape.raster_order = order, shape.max_swizzle = order == RasterOrder::kAlongN ? 8 : 1;
    check_product(kernel(), GetParam().sparse, shape, 77);
  }
}

std::vector<Instance> instances_of_2_4() {
  std::vector<Instance> all;
  for (const SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) all.push_back({kernel, kSparsePatterns[0]});
  return all;
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GpuSparseGemmSlow);
INSTANTIATE_TEST_SUITE_P(, GpuSparseGemmSlow, testing::ValuesIn(instances_of_2_4()), ByName());

class GpuSparseGemmStream : public testing::TestWithParam<cuda::Operands> {};

TEST_P(GpuSparseGemmStream, SideStreamAndGraphReplayWithNewInputs) {
  AMBER_NEEDS_GPU();
  const auto* kernel = cuda::default_sparse_gemm(device_arch(), GetParam(), DType::kBFloat16);
  if (!kernel) GTEST_SKIP() << "this build has no such sparse GEMM for compute capability " << device_arch();
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const ProductShape shape{130, 256, 512};
  const Product<BFloat16> first(*kernel, kSparsePatterns[0], shape, 1), second(*kernel, kSparsePatterns[0], shape, 40);
  DeviceProduct<BFloat16> device(first);
  device.run(stream);  // before the capture: kernels load lazily
  check(cudaStreamSynchronize(stream));
  first.reference.expect(device.output.download());

  cudaGraph_t graph;
  cudaGraphExec_t executable;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  device.run(stream);
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&executable, graph, 0));
  device.x.upload(second.x), device.scale.upload(second.scale), device.smooth.upload(second.smooth);
  device.weight.upload(second.weight), device.weight_scale.upload(second.weight_scale);
  device.bias.upload(second.bias);
  check(cudaGraphLaunch(executable, stream));
  check(cudaStreamSynchronize(stream));
  second.reference.expect(device.output.download());
  check(cudaGraphExecDestroy(executable));
  check(cudaGraphDestroy(graph));
  check(cudaStreamDestroy(stream));
}

INSTANTIATE_TEST_SUITE_P(, GpuSparseGemmStream, testing::Values(cuda::Operands::k16bit, cuda::Operands::kInt8),
                         [](const auto& info) { return info.param == cuda::Operands::kInt8 ? "int8" : "bf16"; });

TEST(SparseGemmList, NamesAreUniqueAndFound) {
  for (const SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    EXPECT_EQ(cuda::find_sparse_gemm(kernel->name), kernel) << kernel->name;
  }
  EXPECT_EQ(cuda::find_sparse_gemm("no such kernel"), nullptr);
  EXPECT_EQ(cuda::default_sparse_gemm(70, cuda::Operands::k16bit, DType::kBFloat16), nullptr);
  EXPECT_EQ(cuda::default_sparse_gemm(90, cuda::Operands::kInt8, DType::kFloat32), nullptr);
}

}  // namespace
