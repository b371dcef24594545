#include "amber/cpu/fused/elementwise.h"

#include "amber/cpu/fused/elementwise_isa.h"

namespace amber::cpu {
namespace {

template <typename T>
void multiply(const T* a, const T* b, int64_t count, T* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = from_float<T>(to_float(a[i]) * to_float(b[i]));
}

void portable_multiply(const void* a, const void* b, DType dtype, int64_t count, void* y) {
  with_element(dtype, [&](auto element) {
    using T = decltype(element);
    multiply(static_cast<const T*>(a), static_cast<const T*>(b), count, static_cast<T*>(y));
  });
}

constexpr ElementwiseSteps kElementwisePortable = {&portable_multiply};

}  // namespace

const ElementwiseSteps& elementwise_steps([[maybe_unused]] Isa isa) {
#if defined(AMBER_X86)
  if (isa == Isa::kAvx512) return kElementwiseAvx512;
  if (isa == Isa::kAvx2) return kElementwiseAvx2;
#endif
  return kElementwisePortable;
}

}  // namespace amber::cpu
