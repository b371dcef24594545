// Global memory: wide accesses, faulty ones, and what is counted.
#include "device.h"

namespace {

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

// ---- vectors and cache hints
__global__ void wide_copies(const uint32_t* from, uint32_t* to) {
  const uint32_t* f = from + 16 * threadIdx.x;
  uint32_t* t = to + 16 * threadIdx.x;
  uint32_t a, b, c, d;
  asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "l"(f));
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(t), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4+16];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
               : "l"(f));
  asm volatile("st.global.cs.v4.u32 [%0+16], {%1, %2, %3, %4};" ::"l"(t), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
  asm volatile("ld.global.cs.v2.b32 {%0, %1}, [%2+32];" : "=r"(a), "=r"(b) : "l"(f));
  asm volatile("st.global.wt.v2.u32 [%0+32], {%1, %2};" ::"l"(t), "r"(a), "r"(b) : "memory");
  asm volatile("ld.global.v2.u32 {%0, _}, [%1+40];" : "=r"(a) : "l"(f));
  asm volatile("st.global.cg.v2.b32 [%0+40], {%1, 7};" ::"l"(t), "r"(a) : "memory");
  uint64_t e, g;
  asm volatile("ld.global.lu.v2.b64 {%0, %1}, [%2+48];" : "=l"(e), "=l"(g) : "l"(f));
  asm volatile("st.global.L1::no_allocate.v2.b64 [%0+48], {%1, %2};" ::"l"(t), "l"(e), "l"(g) : "memory");
}
__global__ void misaligned_vector(uint32_t* to) {
  asm volatile("st.global.v4.b32 [%0+8], {%1, %1, %1, %1};" ::"l"(to), "r"(1) : "memory");
}

TEST(SelfTest, VectorAccessesAndCacheHints) {
  const auto from = random_words(16 * 32, 7);
  Array<uint32_t> dfrom(from), to(16 * 32);
  wide_copies<<<1, 32>>>(dfrom.p, to.p);
  const gpu_emulator::LaunchCounts counts = gpu_emulator::last_launch();
  auto want = from;
  for (int i = 0; i < 32; ++i) want[16 * i + 11] = 7;
  EXPECT_EQ(to.get(), want);
  EXPECT_EQ(counts.global_load.requests, 5u);
  EXPECT_EQ(counts.global_load.distinct_bytes, 64u * 32);
  EXPECT_EQ(counts.global_store.sectors, 5u * 32) << "each touches a sector a thread";
  EXPECT_EQ(counts.global_store.bytes, 64u * 32);
  EXPECT_TRUE(refused([&] { misaligned_vector<<<1, 1>>>(to.p); }));
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
