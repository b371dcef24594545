// Arithmetic and number formats against the host's.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cmath>
#include <cstring>

#include "device.h"

namespace {

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

}  // namespace
