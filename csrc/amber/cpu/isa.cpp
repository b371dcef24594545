#include "amber/cpu/isa.h"

namespace amber::cpu {

Isa best_isa() {
#if defined(AMBER_X86)
  static const Isa best = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
                              ? Isa::kAvx512
                          : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") ? Isa::kAvx2
                                                                                             : Isa::kPortable;
  return best;
#else
  return Isa::kPortable;
#endif
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "AVX2";
    case Isa::kAvx512:
      return "AVX-512";
  }
  return "unknown";
}

bool has_vnni() {
#if defined(AMBER_X86)
  static const bool has = best_isa() == Isa::kAvx512 && __builtin_cpu_supports("avx512vnni");
  return has;
#else
  return false;
#endif
}

bool has_amx() {
#if defined(AMBER_X86)
  static const bool has = __builtin_cpu_supports("amx-int8");
  return has;
#else
  return false;
#endif
}

}  // namespace amber::cpu
