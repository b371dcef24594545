// Tensor cores against the host's sums; fragments, layouts and descriptors are CuTe's.
#include "cute/tensor.hpp"
#include "cutlass/arch/barrier.h"
#include "device.h"

namespace {

// ---- a dense tensor-core product, fragments by CuTe's layouts
template <typename Atom, typename A, typename C>
__global__ void product(const A* a, const A* b, C* c, int k) {
  using namespace cute;
  const auto mma = make_tiled_mma(Atom{});
  const Tensor ga = make_tensor(make_gmem_ptr(a), make_shape(_16{}, k), make_stride(k, _1{}));
  const Tensor gb = make_tensor(make_gmem_ptr(b), make_shape(_8{}, k), make_stride(k, _1{}));
  const Tensor gc = make_tensor(make_gmem_ptr(c), make_shape(_16{}, _8{}), make_stride(_8{}, _1{}));
  const auto thread = mma.get_slice(threadIdx.x);
  Tensor fc = thread.partition_fragment_C(gc);
  clear(fc);
  constexpr int kK = size<2>(typename MMA_Traits<Atom>::Shape_MNK{});
  for (int at = 0; at < k; at += kK) {
    const Tensor ta = make_tensor(ga.data() + at, make_shape(_16{}, Int<kK>{}), make_stride(k, _1{}));
    const Tensor tb = make_tensor(gb.data() + at, make_shape(_8{}, Int<kK>{}), make_stride(k, _1{}));
    Tensor fa = thread.partition_fragment_A(ta);
    Tensor fb = thread.partition_fragment_B(tb);
    copy(thread.partition_A(ta), fa);
    copy(thread.partition_B(tb), fb);
    gemm(mma, fa, fb, fc);
  }
  copy(fc, thread.partition_C(gc));
}

TEST(SelfTest, DenseMmaWithCutesLayouts) {
  const int k = 64;
  std::mt19937 rng(5);
  {
    std::vector<cute::half_t> a(16 * k), b(8 * k);
    for (auto* v : {&a, &b}) {
      for (auto& x : *v) x = cute::half_t(static_cast<float>(static_cast<int>(rng() % 17) - 8));
    }
    Array<cute::half_t> da(a), db(b);
    Array<float> dc(128);
    product<cute::SM80_16x8x16_F32F16F16F32_TN><<<1, 32>>>(da.p, db.p, dc.p, k);
    const auto got = dc.get();
    for (int i = 0; i < 128; ++i) {
      float want = 0;
      for (int c = 0; c < k; ++c) want += static_cast<float>(a[i / 8 * k + c]) * static_cast<float>(b[i % 8 * k + c]);
      ASSERT_EQ(got[i], want);
    }
  }
  {
    std::vector<int8_t> a(16 * k), b(8 * k);
    for (auto* v : {&a, &b}) {
      for (auto& x : *v) x = static_cast<int8_t>(rng());
    }
    Array<int8_t> da(a), db(b);
    Array<int> dc(128);
    product<cute::SM80_16x8x32_S32S8S8S32_TN><<<1, 32>>>(da.p, db.p, dc.p, k);
    const auto got = dc.get();
    for (int i = 0; i < 128; ++i) {
      int want = 0;
      for (int c = 0; c < k; ++c) want += a[i / 8 * k + c] * b[i % 8 * k + c];
      ASSERT_EQ(got[i], want);
    }
  }
}

// ---- the sparse form of e4m3, fragments as the PTX manual draws them: "Matrix fragments for sparse mma.m16n8k64"
__global__ void sparse_product(const uint32_t* a, const uint32_t* b, const uint32_t* metadata, float* c) {
#if __CUDA_ARCH__ >= 890
  const int lane = threadIdx.x, group = lane / 4, quarter = lane % 4;
  float d[4] = {};
  // Rows of A are 32 values, 8 words; those of B's transpose 64, 16 words.
  asm volatile(
      "mma.sp::ordered_metadata.sync.aligned.m16n8k64.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9,%10,%11}, {%0,%1,%2,%3}, %12, 0x0;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[group * 8 + quarter]), "r"(a[(group + 8) * 8 + quarter]), "r"(a[group * 8 + quarter + 4]),
        "r"(a[(group + 8) * 8 + quarter + 4]), "r"(b[group * 16 + quarter]), "r"(b[group * 16 + quarter + 4]),
        "r"(b[group * 16 + quarter + 8]), "r"(b[group * 16 + quarter + 12]), "r"(metadata[lane]));
  for (int i = 0; i < 4; ++i) c[(group + i / 2 * 8) * 8 + 2 * quarter + i % 2] = d[i];
#endif
}

TEST(SelfTest, SparseMmaOfE4m3) {
  int major = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  if (major != 9) GTEST_SKIP() << "the PTX of this test is for compute capability 9.0";
  std::mt19937 rng(11);
  std::vector<float> a(16 * 64), b(8 * 64), want(16 * 8);
  std::vector<uint8_t> kept, narrow_b;
  std::vector<uint32_t> metadata(32);
  const auto small = [&] { return static_cast<float>(static_cast<int>(rng() % 17) - 8); };
  const auto e4m3 = [](float x) { return cutlass::float_e4m3_t(x).raw(); };
  for (int row = 0; row < 16; ++row) {
    for (int quad = 0; quad < 16; ++quad) {
      const int first = static_cast<int>(rng() % 3), second = first + 1 + static_cast<int>(rng() % (3 - first));
      for (int column : {first, second}) {
        a[row * 64 + quad * 4 + column] = small();
        kept.push_back(e4m3(a[row * 64 + quad * 4 + column]));
      }
      // Lanes 0 and 1 of four have the low 32 columns of rows g and g + 8, lanes 2 and 3 the high ones.
      metadata[row % 8 * 4 + row / 8 + quad / 8 * 2] |= static_cast<uint32_t>(first | second << 2) << quad % 8 * 4;
    }
  }
  for (float& x : b) narrow_b.push_back(e4m3(x = small()));
  for (int i = 0; i < 128; ++i) {
    for (int k = 0; k < 64; ++k) want[i] += a[i / 8 * 64 + k] * b[i % 8 * 64 + k];
  }
  Array<uint8_t> da(kept), db(narrow_b);
  Array<uint32_t> de(metadata);
  Array<float> dc(128);
  sparse_product<<<1, 32>>>(reinterpret_cast<uint32_t*>(da.p), reinterpret_cast<uint32_t*>(db.p), de.p, dc.p);
  EXPECT_EQ(dc.get(), want);
}

// ---- wgmma with every swizzle of shared memory, layouts and descriptors by CuTe
template <typename LayoutAtom>
__global__ void __launch_bounds__(128)
    warpgroup_product(const cute::bfloat16_t* a, const cute::bfloat16_t* b, float* c) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using namespace cute;
  const auto layout = tile_to_shape(LayoutAtom{}, make_shape(_64{}, _64{}));
  __shared__ alignas(1024) bfloat16_t memory[2][64 * 64];
  const Tensor sa = make_tensor(make_smem_ptr(memory[0]), layout), sb = make_tensor(make_smem_ptr(memory[1]), layout);
  for (int i = threadIdx.x; i < 64 * 64; i += 128) {
    sa(i / 64, i % 64) = a[i];
    sb(i / 64, i % 64) = b[i];
  }
  cutlass::arch::fence_view_async_shared();
  __syncthreads();
  const auto mma = make_tiled_mma(SM90_64x64x16_F32BF16BF16_SS<GMMA::Major::K, GMMA::Major::K>{});
  const auto thread = mma.get_slice(threadIdx.x);
  const Tensor gc = make_tensor(make_gmem_ptr(c), make_shape(_64{}, _64{}), make_stride(_64{}, _1{}));
  Tensor fc = thread.partition_fragment_C(gc);
  clear(fc);
  const Tensor fa = thread.make_fragment_A(thread.partition_A(sa));
  const Tensor fb = thread.make_fragment_B(thread.partition_B(sb));
  warpgroup_fence_operand(fc);
  warpgroup_arrive();
  gemm(mma, fa, fb, fc);
  warpgroup_commit_batch();
  warpgroup_wait<0>();
  warpgroup_fence_operand(fc);
  copy(fc, thread.partition_C(gc));
#endif
}

TEST(SelfTest, WgmmaWithEverySwizzle) {
  int major = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  if (major != 9) GTEST_SKIP() << "wgmma needs compute capability 9.0";
  std::mt19937 rng(6);
  std::vector<cute::bfloat16_t> a(64 * 64), b(64 * 64);
  for (auto* v : {&a, &b}) {
    for (auto& x : *v) x = cute::bfloat16_t(static_cast<float>(static_cast<int>(rng() % 17) - 8));
  }
  Array<cute::bfloat16_t> da(a), db(b);
  auto check = [&](auto kernel) {
    Array<float> dc(64 * 64);
    kernel<<<1, 128>>>(da.p, db.p, dc.p);
    const auto got = dc.get();
    const std::map<std::string, uint64_t> waits = {{"wait_group 0, 1 in flight", 4}};
    EXPECT_EQ(gpu_emulator::last_launch().wgmma_waits, waits);
    for (int i = 0; i < 64 * 64; ++i) {
      float want = 0;
      for (int k = 0; k < 64; ++k)
        want += static_cast<float>(a[i / 64 * 64 + k]) * static_cast<float>(b[i % 64 * 64 + k]);
      ASSERT_EQ(got[i], want) << i;
    }
  };
  const gpu_emulator::Settings before = gpu_emulator::settings();
  for (bool lazy : {true, false}) {
    for (uint32_t shuffle : {0u, 9u}) {
      gpu_emulator::Settings settings = before;
      settings.lazy_wgmma = lazy, settings.shuffle = shuffle;
      gpu_emulator::set_settings(settings);
      check(&warpgroup_product<cute::GMMA::Layout_K_INTER_Atom<cute::bfloat16_t>>);
      check(&warpgroup_product<cute::GMMA::Layout_K_SW32_Atom<cute::bfloat16_t>>);
      check(&warpgroup_product<cute::GMMA::Layout_K_SW64_Atom<cute::bfloat16_t>>);
      check(&warpgroup_product<cute::GMMA::Layout_K_SW128_Atom<cute::bfloat16_t>>);
    }
  }
  gpu_emulator::set_settings(before);
}

}  // namespace
