// The sparse GEMMs, compression included, against fp64 products of the pruned input.
#include "amber/cuda/sparse_gemm/sparse_gemm.h"
#include "amber/cuda/compress/prune_compress.h"
#include "support.h"

#include <algorithm>

#include "amber/cpu/prune/prune.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

template <typename T>
struct Problem {
  int64_t t, n, k;
  Pattern pattern;
  std::vector<T> x, weight, bias, pruned;

  Problem(int64_t t, int64_t n, int64_t k, unsigned seed, Pattern pattern = {2, 4})
      : t(t),
        n(n),
        k(k),
        pattern(pattern),
        x(random_normal<T>(t * k, seed)),
        weight(random_normal<T>(n * k, seed + 1)),
        bias(random_normal<T>(n, seed + 2)),
        pruned(t * k) {
    cpu::prune_rows({x.data(), nullptr, pruned.data(), nullptr, t, k, pattern, dtype_of<T>(), Rescale::kNone}, 0, t);
  }

  // All of a small product, a sample of a large one.
  void expect(const std::vector<T>& y, bool with_bias) const {
    std::mt19937 rng(9);
    const int64_t samples = std::min<int64_t>(t * n, 20000);
    for (int64_t s = 0; s < samples; ++s) {
      const int64_t i = samples == t * n ? s : static_cast<int64_t>(rng() % static_cast<uint64_t>(t * n));
      double sum = with_bias ? to_float(bias[i % n]) : 0.0, magnitude = std::fabs(sum);
      for (int64_t c = 0; c < k; ++c) {
        const double product = static_cast<double>(to_float(pruned[i / n * k + c])) * to_float(weight[i % n * k + c]);
        sum += product, magnitude += std::fabs(product);
      }
      // fp32 accumulation over K/2 products, then one rounding to T.
      const double rounding = std::is_same_v<T, Float16> ? 0x1p-11 : 0x1p-8;
      const double bound = magnitude * static_cast<double>(k) * 0x1p-24 + std::fabs(sum) * rounding + 1e-6;
      ASSERT_NEAR(to_float(y[i]), sum, bound) << "row " << i / n << " column " << i % n;
    }
  }
};

template <typename T>
struct Device {
  int64_t k, wide_k;
  Pattern pattern;
  DeviceArray<T> x, weight, bias, values, output;
  DeviceArray<uint8_t> metadata;
  cuda::SparseGemmArgs args;
  DeviceArray<uint8_t> workspace;
  const cuda::SparseGemmKernel& kernel;

  Device(const Problem<T>& p, const cuda::SparseGemmKernel& kernel, bool with_bias)
      : k(p.k),
        wide_k(widened_cols(p.k, extra_windows(p.pattern))),
        pattern(p.pattern),
        x(p.x),
        weight(widen_weight(p.weight, p.k, p.pattern)),
        bias(p.bias),
        values(rows(p, kernel) * wide_k / 2),
        output(rows(p, kernel) * p.n),
        metadata(metadata_bytes(kernel.layout, p.t, wide_k)),
        args{values.get(),
             metadata.get(),
             weight.get(),
             with_bias ? bias.get() : nullptr,
             output.get(),
             p.t,
             p.n,
             wide_k,
             device_attribute(cudaDevAttrMultiProcessorCount)},
        workspace(kernel.workspace_bytes(args)),
        kernel(kernel) {}

  static int64_t rows(const Problem<T>& p, const cuda::SparseGemmKernel& kernel) {
    return kernel.padded_rows ? metadata_rows(kernel.layout, p.t) : p.t;
  }

  void run(cudaStream_t stream) {
    const int64_t value_rows = kernel.padded_rows ? metadata_rows(kernel.layout, args.rows) : args.rows;
    check(cuda::prune_compress({x.get(), nullptr, values.get(), metadata.get(), args.rows, k, value_rows, dtype_of<T>(),
                                kernel.layout, pattern},
                               stream));
    ASSERT_EQ(kernel.run(args, workspace.get(), stream), cuda::GemmStatus::kOk);
  }
};

template <typename T>
void check_every_kernel() {
  int ran = 0;
  for (const cuda::SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    if (!kernel->runs_on(device_arch()) || kernel->dtype != dtype_of<T>()) continue;
    if (kernel->operands != cuda::Operands::k16bit) continue;
    ++ran;
    const int64_t n = odd_out_features(*kernel);
    for (int64_t t : {1, 63, 64, 65, 127, 4100}) {
      for (bool with_bias : {false, true}) {
        SCOPED_TRACE(testing::Message() << kernel->name << " T " << t << " bias " << with_bias);
        const Problem<T> problem(t, n, 448, static_cast<unsigned>(t));
        Device<T> device(problem, *kernel, with_bias);
        device.run(nullptr);
        check(cudaDeviceSynchronize());
        problem.expect(device.output.download(), with_bias);
        if (testing::Test::HasFailure()) return;
      }
    }
    for (Pattern pattern : {Pattern{4, 8}, {8, 16}, {10, 16, true}, {12, 16, true}}) {
      SCOPED_TRACE(testing::Message() << kernel->name << " " << pattern.n << ":" << pattern.m);
      const Problem<T> problem(130, n, 448, 5, pattern);
      Device<T> device(problem, *kernel, true);
      device.run(nullptr);
      problem.expect(device.output.download(), true);
    }
    const Problem<T> large(300, 1024, 14336, 77);
    Device<T> device(large, *kernel, false);
    for (auto order : {cuda::RasterOrder::kHeuristic, cuda::RasterOrder::kAlongM, cuda::RasterOrder::kAlongN}) {
      device.args.raster_order = order;
      device.args.max_swizzle = order == cuda::RasterOrder::kAlongN ? 8 : 1;
      device.run(nullptr);
      large.expect(device.output.download(), false);
    }
  }
  if (ran == 0) GTEST_SKIP() << "this build has no sparse GEMM for compute capability " << device_arch();
}

TEST(GpuSparseGemm, BFloat16) {
  AMBER_NEEDS_GPU();
  check_every_kernel<BFloat16>();
}
TEST(GpuSparseGemm, Float16) {
  AMBER_NEEDS_GPU();
  check_every_kernel<Float16>();
}

TEST(GpuSparseGemm, SideStreamAndGraphReplayWithNewInputs) {
  AMBER_NEEDS_GPU();
  const auto* kernel = cuda::default_sparse_gemm(device_arch(), cuda::Operands::k16bit, DType::kBFloat16);
  if (!kernel) GTEST_SKIP() << "this build has no sparse GEMM for compute capability " << device_arch();
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const Problem<BFloat16> first(130, 256, 512, 1), second(130, 256, 512, 40);
  Device<BFloat16> device(first, *kernel, true);
  device.run(stream);  // before the capture: kernels load lazily
  check(cudaStreamSynchronize(stream));
  first.expect(device.output.download(), true);

  cudaGraph_t graph;
  cudaGraphExec_t executable;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  device.run(stream);
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&executable, graph, 0));
  device.x.upload(second.x);
  device.weight.upload(second.weight);
  device.bias.upload(second.bias);
  check(cudaGraphLaunch(executable, stream));
  check(cudaStreamSynchronize(stream));
  second.expect(device.output.download(), true);
  check(cudaGraphExecDestroy(executable));
  check(cudaGraphDestroy(graph));
  check(cudaStreamDestroy(stream));
}

TEST(SparseGemmList, NamesAreUniqueAndFound) {
  for (const cuda::SparseGemmKernel* kernel : cuda::sparse_gemm_kernels()) {
    EXPECT_EQ(cuda::find_sparse_gemm(kernel->name), kernel) << kernel->name;
  }
  EXPECT_EQ(cuda::find_sparse_gemm("no such kernel"), nullptr);
  EXPECT_EQ(cuda::default_sparse_gemm(70, cuda::Operands::k16bit, DType::kBFloat16), nullptr);
  EXPECT_EQ(cuda::default_sparse_gemm(90, cuda::Operands::kInt8, DType::kFloat32), nullptr);
}

}  // namespace
