// Compiler portability, nothing else.
#pragma once

// Internal linkage matters: the vectorised CPU files are compiled with wider instruction sets than
// the rest, and a shared inline symbol could carry those instructions into code for every machine.
#if defined(__CUDACC__)
#define AMBER_HOST_DEVICE __host__ __device__ __forceinline__ static
#else
#define AMBER_HOST_DEVICE inline static
#endif

#define AMBER_PRAGMA(text) _Pragma(#text)

#if defined(__CUDA_ARCH__)
#define AMBER_UNROLL _Pragma("unroll")
#define AMBER_UNROLL_BY(times) AMBER_PRAGMA(unroll(times))
#define AMBER_DO_NOT_UNROLL _Pragma("unroll 1")
#else
#define AMBER_UNROLL
#define AMBER_UNROLL_BY(times)
#define AMBER_DO_NOT_UNROLL
#endif
