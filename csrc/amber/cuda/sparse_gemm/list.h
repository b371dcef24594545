// Every sparse GEMM instantiation, one line each; the first of an architecture, operands and dtype is its
// default. A kernel's name is also the name of its file, <name>.cu.
//
// KERNEL: in every build: what the heuristic (amber_ext/ops/choice/prediction.py) ranks first for some number of
// tokens, which tests/python/ops/test_prediction.py holds. TUNING: where AMBER_KERNELS=all, for amber_ext.tune to try.
// The build reads this file, too (csrc/amber/cuda/cuda.cmake).
#pragma once

#if defined(AMBER_WITH_SM100)
#define AMBER_SPARSE_GEMMS_SM100(KERNEL, TUNING) \
  KERNEL(sm100_bf16_128x256x128_2x1)             \
  KERNEL(sm100_bf16_128x128x128_2x1)             \
  KERNEL(sm100_fp16_128x256x128_2x1)             \
  KERNEL(sm100_fp16_128x128x128_2x1)             \
  KERNEL(sm100_s8_bf16_128x256x256_2x1)          \
  KERNEL(sm100_s8_bf16_128x128x256_2x1)          \
  KERNEL(sm100_s8_fp16_128x128x256_2x1)          \
  KERNEL(sm100_e4m3_bf16_128x256x256_2x1)        \
  KERNEL(sm100_e4m3_bf16_128x128x256_2x1)        \
  KERNEL(sm100_e4m3_fp16_128x128x256_2x1)
#else
#define AMBER_SPARSE_GEMMS_SM100(KERNEL, TUNING)
#endif

#if defined(AMBER_WITH_SM90)
#define AMBER_SPARSE_GEMMS_SM90(KERNEL, TUNING)      \
  KERNEL(sm90_bf16_128x256x128_2x1_cooperative)      \
  TUNING(sm90_bf16_128x256x128_1x2_cooperative)      \
  TUNING(sm90_bf16_256x128x128_2x1_cooperative)      \
  KERNEL(sm90_bf16_128x128x128_2x1_cooperative)      \
  TUNING(sm90_bf16_128x128x128_2x1_pingpong)         \
  KERNEL(sm90_fp16_128x256x128_2x1_cooperative)      \
  KERNEL(sm90_fp16_128x128x128_2x1_cooperative)      \
  KERNEL(sm90_s8_bf16_128x256x128_2x1_cooperative)   \
  KERNEL(sm90_s8_bf16_128x128x128_2x1_pingpong)      \
  KERNEL(sm90_s8_fp16_128x256x128_2x1_cooperative)   \
  KERNEL(sm90_e4m3_bf16_128x256x128_2x1_fast)        \
  KERNEL(sm90_e4m3_bf16_128x128x128_2x1_cooperative) \
  KERNEL(sm90_e4m3_fp16_128x256x128_2x1_fast)
#else
#define AMBER_SPARSE_GEMMS_SM90(KERNEL, TUNING)
#endif

#if defined(AMBER_WITH_SM89)
#define AMBER_SPARSE_GEMMS_SM89(KERNEL, TUNING) \
  KERNEL(sm89_e4m3_bf16_128x128x128)            \
  KERNEL(sm89_e4m3_bf16_64x128x128)             \
  KERNEL(sm89_e4m3_fp16_128x128x128)            \
  KERNEL(sm89_e4m3_fp16_64x128x128)
#else
#define AMBER_SPARSE_GEMMS_SM89(KERNEL, TUNING)
#endif

#if defined(AMBER_WITH_SM80)
#define AMBER_SPARSE_GEMMS_SM80(KERNEL, TUNING) \
  KERNEL(sm80_bf16_128x128x64)                  \
  KERNEL(sm80_bf16_64x128x64)                   \
  TUNING(sm80_bf16_256x128x64)                  \
  KERNEL(sm80_fp16_128x128x64)                  \
  KERNEL(sm80_fp16_64x128x64)                   \
  KERNEL(sm80_s8_bf16_128x128x128)              \
  KERNEL(sm80_s8_bf16_64x128x128)               \
  TUNING(sm80_s8_bf16_256x128x128)              \
  KERNEL(sm80_s8_fp16_128x128x128)              \
  KERNEL(sm80_s8_fp16_64x128x128)
#else
#define AMBER_SPARSE_GEMMS_SM80(KERNEL, TUNING)
#endif
