// Lanes of a warp, barriers, cp.async and mbarriers, used rightly and wrongly.
#include "device.h"

namespace {

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

}  // namespace
