// What an SM90 GEMM does with one tile: bulk copy in, wgmma, bulk copy out; with a switch for each wait and fence.
// Where one is missing, the emulated GPU must stop the kernel, or its result must be wrong.
#include <cuda.h>

#include <cmath>

#include "cute/tensor.hpp"
#include "cutlass/arch/barrier.h"
#include "emulated.h"

namespace {

using namespace amber;
using namespace amber::gpu_test;

enum class Mistake {
  kNone,
  kNoWaitForTheLoad,
  kNoFenceBeforeWgmma,  // operands that threads wrote
  kStageFreedBeforeWgmmaHasRead,
  kNoFenceBeforeTheStore,
  kReuseBeforeTheStoreHasRead,
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
__device__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }
#endif

// c [64, 64] = a b^T of [64, 64] operands that lie as wgmma wants them. Threads copy a to shared memory, a bulk copy
// brings b.
__global__ void __launch_bounds__(128)
    multiply_tile(Mistake mistake, const cute::bfloat16_t* a, const __grid_constant__ CUtensorMap b,
                  const __grid_constant__ CUtensorMap c) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using namespace cute;
  __shared__ alignas(1024) bfloat16_t sa[64 * 64], sb[64 * 64];
  __shared__ alignas(128) float sc[64 * 64];
  __shared__ alignas(8) uint64_t arrived;
  constexpr uint32_t kBytes = 64 * 64 * sizeof(bfloat16_t);
  if (threadIdx.x == 0) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&arrived)) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&arrived)), "r"(kBytes)
                 : "memory");
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %3}], [%2];" ::"r"(
            shared_address(sb)),
        "l"(&b), "r"(shared_address(&arrived)), "r"(0)
        : "memory");
  }
  for (int i = threadIdx.x; i < 64 * 64; i += 128) sa[i] = a[i];
  if (mistake != Mistake::kNoFenceBeforeWgmma) cutlass::arch::fence_view_async_shared();
  __syncthreads();
  if (mistake != Mistake::kNoWaitForTheLoad) {
    uint32_t done = 0;
    while (!done) {
      asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0;\nselp.u32 %0, 1, 0, p;\n}"
                   : "=r"(done)
                   : "r"(shared_address(&arrived))
                   : "memory");
    }
  }
  const auto layout = tile_to_shape(GMMA::Layout_K_INTER_Atom<bfloat16_t>{}, make_shape(_64{}, _64{}));
  const auto mma = make_tiled_mma(SM90_64x64x16_F32BF16BF16_SS<GMMA::Major::K, GMMA::Major::K>{});
  const auto thread = mma.get_slice(threadIdx.x);
  const Tensor tile = make_tensor(make_smem_ptr(sc), make_shape(_64{}, _64{}), make_stride(_64{}, _1{}));
  Tensor sums = thread.partition_fragment_C(tile);
  clear(sums);
  warpgroup_fence_operand(sums);
  warpgroup_arrive();
  gemm(mma, thread.make_fragment_A(thread.partition_A(make_tensor(make_smem_ptr(sa), layout))),
       thread.make_fragment_B(thread.partition_B(make_tensor(make_smem_ptr(sb), layout))), sums);
  warpgroup_commit_batch();
  if (mistake != Mistake::kStageFreedBeforeWgmmaHasRead) warpgroup_wait<0>();
  // The next tile's operands arrive here.
  for (int i = threadIdx.x; i < 64 * 64; i += 128) sa[i] = bfloat16_t(2.0f);
  warpgroup_wait<0>();
  warpgroup_fence_operand(sums);
  copy(sums, thread.partition_C(tile));
  if (mistake != Mistake::kNoFenceBeforeTheStore) cutlass::arch::fence_view_async_shared();
  __syncthreads();
  if (threadIdx.x == 0) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %2}], [%1];" ::"l"(&c),
                 "r"(shared_address(sc)), "r"(0)
                 : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
    if (mistake != Mistake::kReuseBeforeTheStoreHasRead) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
  }
  __syncthreads();
  // The next tile's epilogue writes here.
  for (int i = threadIdx.x; i < 64 * 64; i += 128) sc[i] = -1.0f;
  if (threadIdx.x == 0) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
#endif
}

// An array of 64 x 64 elements, as 16 rows of 256: a box is at most 256 wide.
CUtensorMap map_of(CUtensorMapDataType type, size_t element_bytes, void* array) {
  void* encode = nullptr;
  cudaDriverEntryPointQueryResult found;
  check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault, &found));
  CUtensorMap map;
  const cuuint64_t dims[] = {256, 16}, strides[] = {256 * element_bytes};
  const cuuint32_t box[] = {256, 16}, steps[] = {1, 1};
  const CUresult result = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(encode)(
      &map, type, 2, array, dims, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
      CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  EXPECT_EQ(result, CUDA_SUCCESS);
  return map;
}

TEST(EmulatedPlanted, OneTileOfAGemm_sm90) {
  if (device_arch() != 90) GTEST_SKIP() << "wgmma needs compute capability 9.0";
  const auto layout = cute::tile_to_shape(cute::GMMA::Layout_K_INTER_Atom<cute::bfloat16_t>{},
                                          cute::make_shape(cute::_64{}, cute::_64{}));
  const auto values_a = random_normal<BFloat16>(64 * 64, 1), values_b = random_normal<BFloat16>(64 * 64, 2);
  std::vector<BFloat16> a(64 * 64), b(64 * 64);
  for (int i = 0; i < 64; ++i) {
    for (int k = 0; k < 64; ++k) a[layout(i, k)] = values_a[i * 64 + k], b[layout(i, k)] = values_b[i * 64 + k];
  }
  const DeviceArray<BFloat16> device_a(a), device_b(b);
  const auto is_right = [&](const std::vector<float>& c) {
    for (int i = 0; i < 64 * 64; ++i) {
      double want = 0;
      for (int k = 0; k < 64; ++k) {
        want += double{to_float(values_a[i / 64 * 64 + k])} * to_float(values_b[i % 64 * 64 + k]);
      }
      if (!(std::fabs(c[i] - want) < 1e-4)) return false;
    }
    return true;
  };
  const auto run = [&](Mistake mistake) {
    const DeviceArray<float> c(64 * 64);
    multiply_tile<<<1, 128>>>(mistake, reinterpret_cast<const cute::bfloat16_t*>(device_a.get()),
                              map_of(CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, device_b.get()),
                              map_of(CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, c.get()));
    return !was_stopped() && is_right(c.download());
  };
  EXPECT_TRUE(run(Mistake::kNone)) << gpu_emulator::last_launch().violation;
  for (Mistake mistake :
       {Mistake::kNoWaitForTheLoad, Mistake::kNoFenceBeforeWgmma, Mistake::kStageFreedBeforeWgmmaHasRead,
        Mistake::kNoFenceBeforeTheStore, Mistake::kReuseBeforeTheStoreHasRead}) {
    EXPECT_FALSE(run(mistake)) << "mistake " << static_cast<int>(mistake) << " went unnoticed";
  }
}

}  // namespace
