// The patterns that run on 2:4 hardware as constants, for kernels that are instantiated for each of them.
#pragma once

#include <cstddef>
#include <iterator>
#include <type_traits>
#include <utility>

#include "amber/window.h"

namespace amber::cuda {

// A place in kSparsePatterns.
using Selection = size_t;

constexpr Pattern pattern_of(Selection selection) { return kSparsePatterns[selection].pattern; }

template <Selection S>
inline constexpr int kExtraWindows = kSparsePatterns[S].extra_windows;

template <typename Result, typename Run, size_t... Index>
Result with_selection(Pattern pattern, Result other, Run run, std::index_sequence<Index...>) {
  Result result = other;
  ((pattern == kSparsePatterns[Index].pattern
        ? static_cast<void>(result = run(std::integral_constant<Selection, Index>{}))
        : static_cast<void>(0)),
   ...);
  return result;
}

// Runs `run` with the pattern's Selection as a constant; `other` when it has none.
template <typename Result, typename Run>
Result with_selection(Pattern pattern, Result other, Run run) {
  return with_selection(pattern, other, run, std::make_index_sequence<std::size(kSparsePatterns)>{});
}

}  // namespace amber::cuda
