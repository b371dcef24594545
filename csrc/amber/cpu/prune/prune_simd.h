// The vectorised selection kernel, written once for every instruction set (see simd.h).
//
// A vector holds whole groups (M <= lanes) or a group spans several vectors (M > lanes). Every key
// is compared with each other key of its group by rotating the group's lanes: an element's rank is
// the number of others that beat it, so no sort and no branch is needed.
#pragma once

#include <utility>

#include "amber/cpu/prune/prune_row.h"
#include "amber/cpu/simd.h"
#include "amber/rescale.h"

namespace amber::cpu {
namespace {

// `keep` lanes are 0 or -1.
inline void store_kept(float* out, const float* x, VecI keep) { store(out, load<VecI>(x) & keep); }
inline void store_kept(float* out, VecF value, VecI keep) { store(out, as_int(value) & keep); }

template <typename T>
inline void store_kept(T* out, const T* x, VecI keep) {
  store(out, load<VecI16>(x) & __builtin_convertvector(keep, VecI16));
}
template <typename T>
inline void store_kept(T* out, VecF value, VecI keep) {
  store(out, round_to(value, out) & __builtin_convertvector(keep, VecU16));
}

inline VecI vector_keys(VecF x, VecF scale) {
  const VecI bits = as_int(x * scale) & 0x7fffffff;
  const VecI is_nan = bits > static_cast<int32_t>(kInfKey);
  return (is_nan & static_cast<int32_t>(kNanKey)) | (~is_nan & bits);
}

// Lane l receives the lane of its group that lies R places further, wrapping at the group's end.
template <int Group, int R, int... Lane>
inline VecI rotate(VecI v, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(v, v, (Lane / Group * Group + (Lane % Group + R) % Group)...);
}

// -1 in lanes whose partner at rotation R precedes them, where a tie is lost.
template <int Group, int R, int... Lane>
inline VecI wrapped(std::integer_sequence<int, Lane...>) {
  return VecI{(Lane % Group + R >= Group ? -1 : 0)...};
}

using LaneSequence = std::make_integer_sequence<int, kLanes>;

// Minus the number of group members in the same vector that beat each lane.
template <int Group, int... R>
inline VecI beaten_within(VecI key, std::integer_sequence<int, R...>) {
  VecI beaten = {};
  // key >= k is key > k - 1; R counts from 0, rotations from 1.
  ((beaten += rotate<Group, R + 1>(key, LaneSequence{}) > key + wrapped<Group, R + 1>(LaneSequence{})), ...);
  return beaten;
}

// The same against another vector of the group; `offset` is -1 when that vector comes first.
template <int... R>
inline VecI beaten_by(VecI key, VecI other, int offset, std::integer_sequence<int, R...>) {
  VecI beaten = {};
  const VecI threshold = key + offset;
  ((beaten += rotate<kLanes, R>(other, LaneSequence{}) > threshold), ...);
  return beaten;
}

// How one step of the kernel covers groups of M: `kVectors` vectors hold one or more whole groups.
template <int M>
struct Step {
  static constexpr int kGroup = M < kLanes ? M : kLanes;
  static constexpr int kVectors = M < kLanes ? 1 : M / kLanes;
  static constexpr int kElements = kVectors * kLanes;

  static void keep(const VecI (&key)[kVectors], int n, VecI (&kept)[kVectors]) {
    for (int a = 0; a < kVectors; ++a) {
      VecI beaten = beaten_within<kGroup>(key[a], std::make_integer_sequence<int, kGroup - 1>{});
      for (int b = 0; b < kVectors; ++b) {
        if (b != a) beaten += beaten_by(key[a], key[b], b < a ? -1 : 0, LaneSequence{});
      }
      kept[a] = beaten > -n;
    }
  }
};

// Windowed patterns: a lane takes a whole group of 16, one key after the other, and returns its mask.
template <int Extra>
inline VecI survivors_by_lane(const int32_t (&key)[kLanes * kWindowColumns]) {
  VecI by_column[kWindowColumns];
  for (int i = 0; i < kWindowColumns; ++i) by_column[i] = load_strided<kWindowColumns>(key + i);
  return survivors_windowed<Extra>(by_column);
}

template <typename T, int Extra>
inline void prune_row_windowed(const PruneArgs& args, const T* x, T* pruned, uint8_t* mask) {
  static_assert(kWindowColumns % kLanes == 0);
  const VecF ones = VecF{} + 1.0f;
  const VecI lane_bit = (VecI{} + 1) << lane_numbers();
  constexpr int64_t kStep = kLanes * kWindowColumns;
  for (int64_t begin = 0; begin < args.cols; begin += kStep) {
    const int64_t count = args.cols - begin < kStep ? args.cols - begin : kStep;
    int32_t key[kStep] = {};
    for (int64_t k = 0; k < count; k += kLanes) {
      store(key + k, vector_keys(load_float(x + begin + k), args.scale ? load<VecF>(args.scale + begin + k) : ones));
    }
    const VecI masks = survivors_by_lane<Extra>(key);
    for (int64_t k = 0; k < count; k += kLanes) {
      const int32_t group = masks[k / kWindowColumns] >> (k % kWindowColumns);
      const VecI kept = (lane_bit & group) != 0;
      if (mask) store(mask + begin + k, __builtin_convertvector(kept, VecI8) & 1);
      if (pruned) store_kept(pruned + begin + k, x + begin + k, kept);
    }
  }
}

template <typename T, int M>
inline void prune_row(const PruneArgs& args, const T* x, T* pruned, uint8_t* mask) {
  using S = Step<M>;
  const VecF ones = VecF{} + 1.0f;
  int64_t k = 0;
  for (; k + S::kElements <= args.cols; k += S::kElements) {
    VecI key[S::kVectors];
    VecI kept[S::kVectors];
    for (int v = 0; v < S::kVectors; ++v) {
      const int64_t at = k + v * kLanes;
      key[v] = vector_keys(load_float(x + at), args.scale ? load<VecF>(args.scale + at) : ones);
    }
    S::keep(key, args.pattern.n, kept);
    for (int v = 0; v < S::kVectors; ++v) {
      const int64_t at = k + v * kLanes;
      if (mask) store(mask + at, __builtin_convertvector(kept[v], VecI8) & 1);
      if (pruned) store_kept(pruned + at, x + at, kept[v]);
    }
  }
  for (; k < args.cols; k += M) {
    const uint32_t keep = select_any(x + k, args.scale ? args.scale + k : nullptr, args.pattern);
    write_group(x + k, keep, M, pruned ? pruned + k : nullptr, mask ? mask + k : nullptr);
  }
}

// In place: dropped entries are +0 and stay so, whatever the factor.
template <typename T>
inline void rescale_row(T* pruned, int64_t cols, float factor) {
  const VecF factors = VecF{} + factor;
  int64_t k = 0;
  for (; k + kLanes <= cols; k += kLanes) {
    const VecF value = load_float(pruned + k);
    store_kept(pruned + k, value * factors, VecI{} - 1);
  }
  for (; k < cols; ++k) pruned[k] = from_float<T>(to_float(pruned[k]) * factor);
}

template <typename T>
using PruneRow = void (*)(const PruneArgs& args, const T* x, T* pruned, uint8_t* mask);

template <typename T, PruneRow<T> Prune>
bool prune_rows_by(const PruneArgs& args, int64_t row_begin, int64_t row_end) {
  for (int64_t t = row_begin; t < row_end; ++t) {
    const T* x = static_cast<const T*>(args.x) + t * args.cols;
    T* pruned = args.pruned ? static_cast<T*>(args.pruned) + t * args.cols : nullptr;
    uint8_t* mask = args.mask ? args.mask + t * args.cols : nullptr;
    Prune(args, x, pruned, mask);
    if (pruned && args.rescale == Rescale::kVariance) {
      rescale_row(pruned, args.cols, rescale_factor(vector_variance(x, args.cols), vector_variance(pruned, args.cols)));
    }
  }
  return true;
}

template <typename T>
bool prune_rows_of_dtype(const PruneArgs& args, int64_t row_begin, int64_t row_end) {
  if (args.pattern.windowed) {
    return with_extra_windows(extra_windows(args.pattern), [&](auto extra) {
      return prune_rows_by<T, &prune_row_windowed<T, decltype(extra)::value>>(args, row_begin, row_end);
    });
  }
  switch (args.pattern.m) {
    case 2:
      return prune_rows_by<T, &prune_row<T, 2>>(args, row_begin, row_end);
    case 4:
      return prune_rows_by<T, &prune_row<T, 4>>(args, row_begin, row_end);
    case 8:
      return prune_rows_by<T, &prune_row<T, 8>>(args, row_begin, row_end);
    case 16:
      return prune_rows_by<T, &prune_row<T, 16>>(args, row_begin, row_end);
    case 32:
      return prune_rows_by<T, &prune_row<T, 32>>(args, row_begin, row_end);
    default:
      return false;
  }
}

// False when M is not a power of two above 1: the scalar kernel takes those.
bool simd_prune_rows(const PruneArgs& args, int64_t row_begin, int64_t row_end) {
  switch (args.dtype) {
    case DType::kFloat32:
      return prune_rows_of_dtype<float>(args, row_begin, row_end);
    case DType::kFloat16:
      return prune_rows_of_dtype<Float16>(args, row_begin, row_end);
    case DType::kBFloat16:
      return prune_rows_of_dtype<BFloat16>(args, row_begin, row_end);
  }
  return false;
}

}  // namespace
}  // namespace amber::cpu
