// Every sparse GEMM instantiation, one line each; the first of an architecture, operands and dtype is its
// default. A kernel's name is also the name of its file, <name>.cu.
#pragma once

#if defined(AMBER_WITH_SM90)
#define AMBER_SPARSE_GEMMS_SM90(KERNEL)              \
  KERNEL(sm90_bf16_128x256x128_2x1_cooperative)      \
  KERNEL(sm90_bf16_128x256x128_1x2_cooperative)      \
  KERNEL(sm90_bf16_256x128x128_2x1_cooperative)      \
  KERNEL(sm90_bf16_128x128x128_2x1_cooperative)      \
  KERNEL(sm90_bf16_128x128x128_2x1_pingpong)         \
  KERNEL(sm90_fp16_128x256x128_2x1_cooperative)      \
  KERNEL(sm90_fp16_128x128x128_2x1_cooperative)      \
  KERNEL(sm90_s8_bf16_128x256x128_2x1_cooperative)   \
  KERNEL(sm90_s8_bf16_128x128x128_2x1_pingpong)      \
  KERNEL(sm90_s8_fp16_128x256x128_2x1_cooperative)   \
  KERNEL(sm90_e4m3_bf16_128x256x128_2x1_fast)        \
  KERNEL(sm90_e4m3_bf16_128x128x128_2x1_cooperative) \
  KERNEL(sm90_e4m3_fp16_128x256x128_2x1_fast)
#else
#define AMBER_SPARSE_GEMMS_SM90(KERNEL)
#endif

#if defined(AMBER_WITH_SM80)
#define AMBER_SPARSE_GEMMS_SM80(KERNEL) \
  KERNEL(sm80_bf16_128x128x64)          \
  KERNEL(sm80_fp16_128x128x64)          \
  KERNEL(sm80_s8_bf16_128x128x128)      \
  KERNEL(sm80_s8_fp16_128x128x128)
#else
#define AMBER_SPARSE_GEMMS_SM80(KERNEL)
#endif
