// Tests of the emulator itself: results against the host's arithmetic, and faulty kernels that it must refuse.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "cute/tensor.hpp"
#include "cutlass/arch/barrier.h"
#include "gpu_emulator.h"

namespace {

template <typename T>
struct Array {
  explicit Array(size_t n) : n(n) { cudaMalloc(&p, n * sizeof(T)); }
  explicit Array(const std::vector<T>& v) : Array(v.size()) {
    cudaMemcpy(p, v.data(), n * sizeof(T), cudaMemcpyHostToDevice);
  }
  ~Array() { cudaFree(p); }
  std::vector<T> get() const {
    std::vector<T> v(n);
    EXPECT_EQ(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return v;
  }
  size_t n;
  T* p = nullptr;
};

std::vector<uint32_t> random_words(size_t n, unsigned seed) {
  std::mt19937 rng(seed);
  std::vector<uint32_t> v(n);
  for (auto& x : v) x = rng();
  return v;
}

// ---- integers
__global__ void integers(const uint32_t* a, const uint32_t* b, const uint32_t* c, uint32_t* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const uint32_t x = a[i], y = b[i], z = c[i];
  uint32_t* o = out + i * 20;
  o[0] = __byte_perm(x, y, z);
  o[1] = __funnelshift_l(x, y, z), o[2] = __funnelshift_r(x, y, z), o[3] = __funnelshift_lc(x, y, z & 63),
  o[4] = __funnelshift_rc(x, y, z & 63);
  o[5] = __clz(x & (z >> 3)), o[6] = __popc(x), o[7] = __brev(x);
  o[8] = __umulhi(x, y), o[9] = static_cast<uint32_t>(__mulhi(static_cast<int>(x), static_cast<int>(y)));
  o[10] = static_cast<uint32_t>(__dp4a(static_cast<int>(x), static_cast<int>(y), static_cast<int>(z)));
  uint32_t r;
  asm("lop3.b32 %0, %1, %2, %3, 0x96;" : "=r"(r) : "r"(x), "r"(y), "r"(z));
  o[11] = r;
  asm("lop3.b32 %0, %1, %2, %3, 0xe2;" : "=r"(r) : "r"(x), "r"(y), "r"(z));
  o[12] = r;
  asm("bfe.u32 %0, %1, %2, %3;" : "=r"(r) : "r"(x), "r"(y & 31), "r"(z & 31));
  o[13] = r;
  asm("bfe.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(x), "r"(y & 31), "r"(z & 31));
  o[14] = r;
  asm("bfi.b32 %0, %1, %2, %3, %4;" : "=r"(r) : "r"(x), "r"(y), "r"(z & 31), "r"((z >> 5) & 31));
  o[15] = r;
  const uint64_t wide = static_cast<uint64_t>(x) * y + z;
  o[16] = static_cast<uint32_t>(wide / (z | 1)), o[17] = static_cast<uint32_t>(wide % (z | 1));
  o[18] = static_cast<uint32_t>(static_cast<int64_t>(wide) >> (z & 63)),
  o[19] = static_cast<uint32_t>(static_cast<int>(x) / static_cast<int>(y | 1));
}

TEST(SelfTest, Integers) {
  const int n = 5000;
  auto a = random_words(n, 1), b = random_words(n, 2), c = random_words(n, 3);
  Array<uint32_t> da(a), db(b), dc(c), out(n * 20);
  integers<<<(n + 127) / 128, 128>>>(da.p, db.p, dc.p, out.p, n);
  const auto got = out.get();
  for (int i = 0; i < n; ++i) {
    const uint32_t x = a[i], y = b[i], z = c[i];
    const uint32_t* o = &got[i * 20];
    const uint64_t pair = static_cast<uint64_t>(y) << 32 | x;
    uint32_t perm = 0, rev = 0;
    for (int k = 0; k < 4; ++k) {
      const uint32_t s = z >> (4 * k) & 15;
      uint32_t v = pair >> (8 * (s & 7)) & 255;
      if (s & 8) v = v & 128 ? 255 : 0;
      perm |= v << (8 * k);
    }
    // __byte_perm has only three bits to a selector.
    uint32_t perm3 = 0;
    for (int k = 0; k < 4; ++k) perm3 |= static_cast<uint32_t>(pair >> (8 * (z >> (4 * k) & 7)) & 255) << (8 * k);
    ASSERT_TRUE(o[0] == perm || o[0] == perm3);
    auto left = [&](int s) { return s == 0 ? y : s >= 32 ? x : y << s | x >> (32 - s); };
    auto right = [&](int s) { return s == 0 ? x : s >= 32 ? y : x >> s | y << (32 - s); };
    ASSERT_EQ(o[1], left(z & 31));
    ASSERT_EQ(o[2], right(z & 31));
    ASSERT_EQ(o[3], left(std::min<int>(z & 63, 32)));
    ASSERT_EQ(o[4], right(std::min<int>(z & 63, 32)));
    const uint32_t masked = x & (z >> 3);
    ASSERT_EQ(o[5], masked ? static_cast<uint32_t>(__builtin_clz(masked)) : 32u);
    ASSERT_EQ(o[6], static_cast<uint32_t>(__builtin_popcount(x)));
    for (int k = 0; k < 32; ++k) rev |= (x >> k & 1) << (31 - k);
    ASSERT_EQ(o[7], rev);
    ASSERT_EQ(o[8], static_cast<uint32_t>(static_cast<uint64_t>(x) * y >> 32));
    ASSERT_EQ(o[9],
              static_cast<uint32_t>(static_cast<int64_t>(static_cast<int32_t>(x)) * static_cast<int32_t>(y) >> 32));
    uint32_t dot = z;
    for (int k = 0; k < 4; ++k) dot += static_cast<int8_t>(x >> (8 * k)) * static_cast<int8_t>(y >> (8 * k));
    ASSERT_EQ(o[10], dot);
    ASSERT_EQ(o[11], x ^ y ^ z);
    ASSERT_EQ(o[12], (y & x) | (~y & z)) << "0xe2 is b ? a : c";
    const int pos = y & 31, length = z & 31;
    const uint64_t zero = static_cast<uint64_t>(x) >> pos & ((1ull << length) - 1);
    ASSERT_EQ(o[13], static_cast<uint32_t>(zero));
    const int64_t extended = static_cast<int64_t>(static_cast<int32_t>(x));
    const uint32_t want_signed =
        length == 0
            ? 0
            : static_cast<uint32_t>(static_cast<int64_t>(static_cast<uint64_t>(extended >> pos) << (64 - length)) >>
                                    (64 - length));
    ASSERT_EQ(o[14], want_signed);
    const int at = z & 31, bits = z >> 5 & 31;
    const uint32_t mask = static_cast<uint32_t>(((1ull << bits) - 1) << at);
    ASSERT_EQ(o[15], (y & ~mask) | (x << at & mask));
    const uint64_t wide = static_cast<uint64_t>(x) * y + z;
    ASSERT_EQ(o[16], static_cast<uint32_t>(wide / (z | 1)));
    ASSERT_EQ(o[17], static_cast<uint32_t>(wide % (z | 1)));
    ASSERT_EQ(o[18], static_cast<uint32_t>(static_cast<int64_t>(wide) >> (z & 63)));
    ASSERT_EQ(o[19],
              static_cast<uint32_t>(static_cast<int64_t>(static_cast<int32_t>(x)) / static_cast<int32_t>(y | 1)));
  }
}

// ---- number formats, against the host's own conversions
__global__ void narrow(const float* x, uint16_t* half, uint16_t* bf16, uint16_t* fp8, int* rounded, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  half[i] = __half_as_ushort(__float2half_rn(x[i]));
  bf16[i] = __bfloat16_as_ushort(__float2bfloat16_rn(x[i]));
  uint16_t two;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(two) : "f"(-x[i]), "f"(x[i]));
  fp8[i] = two;
  rounded[i] = __float2int_rn(x[i]);
}
__global__ void widen(float* half, float* fp8) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  half[i] = __half2float(__ushort_as_half(static_cast<unsigned short>(i)));
  uint32_t two;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(two) : "h"(static_cast<unsigned short>(i)));
  fp8[i] = __half2float(__ushort_as_half(static_cast<unsigned short>(two & 0xffff)));
}

TEST(SelfTest, NumberFormats) {
  std::vector<float> x;
  for (uint32_t w : random_words(200000, 4)) {
    float f;
    std::memcpy(&f, &w, 4);
    x.push_back(f);
    x.push_back(static_cast<float>(static_cast<int>(w % 200001) - 100000) / 128.0f);
    w = (w & 0x807fffffu) | (100 + (w >> 16) % 50) << 23;  // where fp16 and e4m3 round
    std::memcpy(&f, &w, 4);
    x.push_back(f);
    w &= 0xfffff000u;  // ties
    std::memcpy(&f, &w, 4);
    x.push_back(f);
  }
  const int n = static_cast<int>(x.size());
  Array<float> dx(x);
  Array<uint16_t> h(n), b(n), e(n);
  Array<int> r(n);
  narrow<<<(n + 255) / 256, 256>>>(dx.p, h.p, b.p, e.p, r.p, n);
  const auto gh = h.get(), gb = b.get(), ge = e.get();
  const auto gr = r.get();
  for (int i = 0; i < n; ++i) {
    if (std::isnan(x[i])) {
      ASSERT_EQ(gh[i], 0x7fff);
      ASSERT_EQ(gb[i], 0x7fff);
      ASSERT_EQ(ge[i], 0x7f7f);
      continue;
    }
    const _Float16 want = static_cast<_Float16>(x[i]);
    uint16_t bits;
    std::memcpy(&bits, &want, 2);
    ASSERT_EQ(gh[i], bits) << x[i];
    ASSERT_EQ(gb[i], __bfloat16_as_ushort(__float2bfloat16_rn(x[i]))) << x[i];
    const uint16_t low = __nv_cvt_float_to_fp8(x[i], __NV_SATFINITE, __NV_E4M3),
                   high = __nv_cvt_float_to_fp8(-x[i], __NV_SATFINITE, __NV_E4M3);
    ASSERT_EQ(ge[i], high << 8 | low) << x[i];
    if (std::fabs(x[i]) < 2e9f) ASSERT_EQ(gr[i], static_cast<int>(std::nearbyint(x[i])));
  }
  Array<float> wh(65536), we(65536);
  widen<<<256, 256>>>(wh.p, we.p);
  const auto gwh = wh.get(), gwe = we.get();
  for (int i = 0; i < 65536; ++i) {
    const uint16_t raw = static_cast<uint16_t>(i);
    _Float16 f;
    std::memcpy(&f, &raw, 2);
    if (std::isnan(static_cast<float>(f))) {
      ASSERT_TRUE(std::isnan(gwh[i]));
    } else {
      ASSERT_EQ(gwh[i], static_cast<float>(f));
    }
    const float want = __half2float(__half(__nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(i), __NV_E4M3)));
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(gwe[i]));
    } else {
      ASSERT_EQ(gwe[i], want);
    }
  }
}

__global__ void half_arithmetic(const __half2* a, const __half2* b, const __half2* c, __half2* out,
                                const __nv_bfloat162* d, const __nv_bfloat162* e, const __nv_bfloat162* f,
                                __nv_bfloat162* out2) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  out[4 * i] = __hadd2(a[i], b[i]), out[4 * i + 1] = __hmul2(a[i], b[i]), out[4 * i + 2] = __hfma2(a[i], b[i], c[i]),
          out[4 * i + 3] = __hmax2(a[i], b[i]);
  out2[i] = __hfma2(d[i], e[i], f[i]);
}

TEST(SelfTest, HalfArithmetic) {
  const int n = 1 << 16;
  auto words = [&](unsigned seed) {
    auto w = random_words(n, seed);
    for (auto& x : w) x = (x & 0xbfffbfffu) | 0x10001000u;  // finite
    return w;
  };
  auto a = words(1), b = words(2), c = words(3);
  Array<uint32_t> da(a), db(b), dc(c), out(4 * n), out2(n);
  half_arithmetic<<<n / 256, 256>>>(reinterpret_cast<__half2*>(da.p), reinterpret_cast<__half2*>(db.p),
                                    reinterpret_cast<__half2*>(dc.p), reinterpret_cast<__half2*>(out.p),
                                    reinterpret_cast<__nv_bfloat162*>(da.p), reinterpret_cast<__nv_bfloat162*>(db.p),
                                    reinterpret_cast<__nv_bfloat162*>(dc.p), reinterpret_cast<__nv_bfloat162*>(out2.p));
  const auto got = out.get(), got2 = out2.get();
  auto half = [](uint32_t w, int k) {
    const uint16_t raw = static_cast<uint16_t>(w >> (16 * k));
    _Float16 f;
    std::memcpy(&f, &raw, 2);
    return f;
  };
  auto same = [](uint16_t raw, long double want) {
    _Float16 f, w = static_cast<_Float16>(want);
    std::memcpy(&f, &raw, 2);
    return f == w;
  };
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < 2; ++k) {
      const long double x = half(a[i], k), y = half(b[i], k), z = half(c[i], k);
      ASSERT_TRUE(same(static_cast<uint16_t>(got[4 * i] >> (16 * k)), x + y));
      ASSERT_TRUE(same(static_cast<uint16_t>(got[4 * i + 1] >> (16 * k)), x * y));
      ASSERT_TRUE(same(static_cast<uint16_t>(got[4 * i + 2] >> (16 * k)), x * y + z))
          << static_cast<double>(x) << " " << static_cast<double>(y) << " " << static_cast<double>(z);
      ASSERT_TRUE(same(static_cast<uint16_t>(got[4 * i + 3] >> (16 * k)), x > y ? x : y));
    }
  }
}

// ---- warps
__global__ void warp_functions(uint32_t* out) {
  const unsigned lane = threadIdx.x % 32, all = 0xffffffffu;
  uint32_t* o = out + threadIdx.x * 8;
  o[0] = __shfl_up_sync(all, lane * 3, 5), o[1] = __shfl_down_sync(all, lane * 3, 7, 16),
  o[2] = __shfl_xor_sync(all, lane * 3, 9), o[3] = __shfl_sync(all, lane * 3, lane + 3, 8);
  o[4] = __ballot_sync(all, lane % 3 == 0);
  o[5] = __match_any_sync(all, lane % 5);
  o[6] = __reduce_max_sync(all, (lane * 7) % 31);
  // Divergence: lanes leave a loop one after another, half of them vote inside.
  uint32_t steps = 0;
  for (uint32_t v = lane + 1; v != 1; v = v % 2 ? 3 * v + 1 : v / 2) ++steps;
  if (lane % 2) {
    steps += 1000 * __popc(__ballot_sync(0xaaaaaaaau, steps > 10));
  } else {
    steps += 100000;
  }
  o[7] = steps;
}

TEST(SelfTest, WarpFunctionsAndDivergence) {
  Array<uint32_t> out(64 * 8);
  warp_functions<<<1, 64>>>(out.p);
  const auto got = out.get();
  uint32_t many = 0;
  auto steps = [](uint32_t lane) {
    uint32_t s = 0;
    for (uint32_t v = lane + 1; v != 1; v = v % 2 ? 3 * v + 1 : v / 2) ++s;
    return s;
  };
  for (uint32_t l = 1; l < 32; l += 2) many += steps(l) > 10;
  for (uint32_t t = 0; t < 64; ++t) {
    const uint32_t l = t % 32;
    const uint32_t* o = &got[t * 8];
    EXPECT_EQ(o[0], (l >= 5 ? l - 5 : l) * 3);
    EXPECT_EQ(o[1], (l % 16 + 7 < 16 ? l + 7 : l) * 3);
    EXPECT_EQ(o[2], (l ^ 9) * 3);
    EXPECT_EQ(o[3], (l / 8 * 8 + (l + 3) % 8) * 3);
    uint32_t ballot = 0, match = 0, most = 0;
    for (uint32_t k = 0; k < 32; ++k) {
      ballot |= static_cast<uint32_t>(k % 3 == 0) << k, match |= static_cast<uint32_t>(k % 5 == l % 5) << k,
          most = std::max(most, k * 7 % 31);
    }
    EXPECT_EQ(o[4], ballot);
    EXPECT_EQ(o[5], match);
    EXPECT_EQ(o[6], most);
    EXPECT_EQ(o[7], steps(l) + (l % 2 ? 1000 * many : 100000));
  }
}

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
  check(&warpgroup_product<cute::GMMA::Layout_K_INTER_Atom<cute::bfloat16_t>>);
  check(&warpgroup_product<cute::GMMA::Layout_K_SW32_Atom<cute::bfloat16_t>>);
  check(&warpgroup_product<cute::GMMA::Layout_K_SW64_Atom<cute::bfloat16_t>>);
  check(&warpgroup_product<cute::GMMA::Layout_K_SW128_Atom<cute::bfloat16_t>>);
}

// ---- faulty kernels
bool refused(const std::function<void()>& launch) {
  launch();
  const bool failed = cudaDeviceSynchronize() != cudaSuccess;
  EXPECT_EQ(gpu_emulator::take_violations(), failed ? 1u : 0u);
  return failed;
}

__global__ void touch(int* p, int at, bool write) {
  if (write) {
    p[at] = 1;
  } else if (p[at] == 12345) {
    p[0] = 2;
  }
}
__global__ void misaligned(const char* p, int2* out) { *out = *reinterpret_cast<const int2*>(p + 4); }

TEST(SelfTest, RefusesBadGlobalAccess) {
  Array<int> a(std::vector<int>(100, 7));
  Array<int2> out(1);
  EXPECT_FALSE(refused([&] { touch<<<1, 1>>>(a.p, 99, false); }));
  EXPECT_TRUE(refused([&] { touch<<<1, 1>>>(a.p, 100, false); }));
  EXPECT_TRUE(refused([&] { touch<<<1, 1>>>(a.p, -1, true); }));
  EXPECT_TRUE(refused([&] { touch<<<1, 1>>>(nullptr, 0, true); }));
  EXPECT_TRUE(refused([&] { misaligned<<<1, 1>>>(reinterpret_cast<char*>(a.p), out.p); }));
  Array<int> fresh(10);
  EXPECT_TRUE(refused([&] { touch<<<1, 1>>>(fresh.p, 3, false); })) << "never written";
  cudaMemset(fresh.p, 0xff, 40);
  EXPECT_TRUE(refused([&] { touch<<<1, 1>>>(fresh.p, 3, false); })) << "poison";
  int* freed = nullptr;
  cudaMalloc(&freed, 40);
  cudaFree(freed);
  EXPECT_TRUE(refused([&] { touch<<<1, 1>>>(freed, 0, true); }));
}

__global__ void exchange(int* out, bool barrier) {
  __shared__ int s[64];
  s[threadIdx.x] = threadIdx.x;
  if (barrier) __syncthreads();
  out[threadIdx.x] = s[63 - threadIdx.x];
}
__global__ void overwrite(int* out, bool barrier) {
  __shared__ int s[64];
  s[threadIdx.x] = threadIdx.x;
  __syncthreads();
  const int other = s[63 - threadIdx.x];
  if (barrier) __syncthreads();
  s[threadIdx.x] = 1000;
  out[threadIdx.x] = other;
}

TEST(SelfTest, RefusesMissingBarriers) {
  Array<int> out(64);
  EXPECT_FALSE(refused([&] { exchange<<<1, 64>>>(out.p, true); }));
  EXPECT_TRUE(refused([&] { exchange<<<1, 64>>>(out.p, false); })) << "the other warp's half is not written yet";
  EXPECT_FALSE(refused([&] { overwrite<<<1, 64>>>(out.p, true); }));
  const gpu_emulator::Settings before = gpu_emulator::settings();
  gpu_emulator::Settings races = before;
  races.check_races = true;
  gpu_emulator::set_settings(races);
  EXPECT_FALSE(refused([&] { overwrite<<<1, 64>>>(out.p, true); }));
  EXPECT_TRUE(refused([&] { overwrite<<<1, 64>>>(out.p, false); }));
  gpu_emulator::set_settings(before);
}

__global__ void copy_async(const int* from, int* out, bool wait) {
  __shared__ alignas(16) int s[32 * 4];
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(&s[threadIdx.x * 4]));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from + threadIdx.x * 4) : "memory");
  asm volatile("cp.async.commit_group;" ::: "memory");
  if (wait) asm volatile("cp.async.wait_group 0;" ::: "memory");
  out[threadIdx.x] = s[threadIdx.x * 4];
}

TEST(SelfTest, RefusesAMissingWaitForCpAsync) {
  Array<int> from(std::vector<int>(128, 3)), out(32);
  EXPECT_FALSE(refused([&] { copy_async<<<1, 32>>>(from.p, out.p, true); }));
  EXPECT_EQ(out.get()[5], 3);
  EXPECT_TRUE(refused([&] { copy_async<<<1, 32>>>(from.p, out.p, false); }));
}

__global__ void mbarrier_wait(int arrivals) {
  __shared__ alignas(8) uint64_t bar;
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(&bar));
  if (threadIdx.x == 0) asm volatile("mbarrier.init.shared::cta.b64 [%0], 2;" ::"r"(at) : "memory");
  __syncthreads();
  if (threadIdx.x < static_cast<unsigned>(arrivals))
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
  unsigned done = 0;
  while (!done) {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done)
                 : "r"(at)
                 : "memory");
  }
}
__global__ void bad_shuffle(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, static_cast<int>(threadIdx.x), 20);
}

TEST(SelfTest, RefusesDeadlocksAndWrongParticipants) {
  EXPECT_FALSE(refused([&] { mbarrier_wait<<<1, 64>>>(2); }));
  EXPECT_TRUE(refused([&] { mbarrier_wait<<<1, 64>>>(1); })) << "one arrival is missing";
  EXPECT_TRUE(refused([&] { mbarrier_wait<<<1, 64>>>(4); }))
      << "two phases done, so that the parity is that of the one before";
  Array<int> out(32);
  EXPECT_TRUE(refused([&] { bad_shuffle<<<1, 32>>>(out.p); }));
}

// ---- what a launch counts
__global__ void strided_copy(const int* from, int* to, int stride) {
  to[threadIdx.x] = from[threadIdx.x * stride] + from[0];
}

TEST(SelfTest, CountsOfALaunch) {
  Array<int> from(std::vector<int>(64 * 8, 1)), to(64);
  for (int stride : {1, 8}) {
    strided_copy<<<1, 64>>>(from.p, to.p, stride);
    const gpu_emulator::LaunchCounts counts = gpu_emulator::last_launch();
    EXPECT_NE(counts.kernel.find("strided_copy(int const*, int*, int)"), std::string::npos) << counts.kernel;
    EXPECT_EQ(counts.violation, "");
    EXPECT_GT(counts.thread_instructions, 64u * 4);
    EXPECT_EQ(counts.global_load.requests, 2u * 2);
    EXPECT_EQ(counts.global_load.bytes, 64u * 2 * 4);
    EXPECT_EQ(counts.global_load.sectors, (stride == 1 ? 8u : 64u) + 2);
    EXPECT_EQ(counts.global_load.distinct_bytes, 64u * 4);
    EXPECT_EQ(counts.global_store.requests, 2u);
    EXPECT_EQ(counts.global_store.sectors, 8u);
    EXPECT_EQ(counts.global_store.distinct_bytes, 64u * 4);
    EXPECT_EQ(counts.bulk_load_bytes, 0u);
    EXPECT_TRUE(counts.wgmma_waits.empty());
  }
  strided_copy<<<1, 64>>>(from.p, to.p, 9);
  EXPECT_NE(gpu_emulator::last_launch().violation.find("out of bounds"), std::string::npos);
  EXPECT_EQ(gpu_emulator::take_violations(), 1u);
  EXPECT_EQ(gpu_emulator::take_violations(), 0u);
  EXPECT_NE(cudaDeviceSynchronize(), cudaSuccess);
}

}  // namespace
