// Loads, stores and the compression of 16 columns, for host and device: what the compressing kernels share.
#pragma once

#include <cstring>

#include "amber/cuda/compress/selection.h"
#include "amber/cuda/element.h"
#include "amber/metadata.h"
#include "amber/select.h"
#include "amber/select_window.h"

namespace amber::cuda {

inline constexpr uint32_t kPaddingNibbles = 0x44444444;  // E of padding: indices {0, 1} in every quad

struct Words4 {
  uint32_t word[4];
};

// X is read once: on a GPU, do not keep it in the cache.
AMBER_HOST_DEVICE Words4 load_streaming(const void* from) {
  Words4 words;
#if defined(__CUDA_ARCH__)
  const uint4 four = __ldcs(static_cast<const uint4*>(from));
  words = {{four.x, four.y, four.z, four.w}};
#else
  std::memcpy(&words, from, sizeof words);
#endif
  return words;
}

// The scale is read by every row: on a GPU, through the read-only cache.
AMBER_HOST_DEVICE void load_4_floats(const float* from, float* to) {
#if defined(__CUDA_ARCH__)
  const float4 four = __ldg(reinterpret_cast<const float4*>(from));
  to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
#else
  std::memcpy(to, from, 4 * sizeof(float));
#endif
}

// In PTX: nvcc splits some assignments to a uint2 or uint4 into stores of 4 bytes, and a warp's request then fills a
// quarter of the sectors that it touches. Not __stwb: of that ptxas makes a strong store, STG.STRONG.SM.
AMBER_HOST_DEVICE void store_8_bytes(void* to, const Words4& words) {
#if defined(__CUDA_ARCH__)
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(to)), "r"(words.word[0]),
               "r"(words.word[1])
               : "memory");
#else
  std::memcpy(to, &words, 2 * sizeof(uint32_t));
#endif
}

AMBER_HOST_DEVICE void store_16_bytes(void* to, const Words4& words) {
#if defined(__CUDA_ARCH__)
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(words.word[0]),
               "r"(words.word[1]), "r"(words.word[2]), "r"(words.word[3])
               : "memory");
#else
  std::memcpy(to, &words, sizeof words);
#endif
}

// The first 1, 2 or 4 words, at once.
template <int Count>
AMBER_HOST_DEVICE void store_copies(void* to, const Words4& words) {
  if constexpr (Count == 4) {
    store_16_bytes(to, words);
  } else if constexpr (Count == 2) {
    store_8_bytes(to, words);
  } else {
    static_assert(Count == 1);
    *static_cast<uint32_t*>(to) = words.word[0];
  }
}

// Bytes of {low, high} by the selector's nibbles, as the PRMT instruction picks them.
AMBER_HOST_DEVICE uint32_t pick_bytes(uint32_t low, uint32_t high, uint32_t selector) {
#if defined(__CUDA_ARCH__)
  // In PTX: __byte_perm clears the selector's other bits, which PRMT ignores.
  uint32_t picked;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(picked) : "r"(low), "r"(high), "r"(selector));
  return picked;
#else
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  uint32_t picked = 0;
  for (int i = 0; i < 4; ++i) {
    picked |= static_cast<uint32_t>(bytes >> (8 * ((selector >> (4 * i)) & 7u)) & 0xffu) << (8 * i);
  }
  return picked;
#endif
}

// What a window layout keeps of 16 columns: two values for each window (the quads, then the extra ones),
// two to a word, and their nibbles.
template <Selection S>
struct Compressed16 {
  uint32_t pair[kQuads + kExtraWindows<S>];
  uint32_t nibbles;
};

// The keys of columns `begin` .. of 16 columns, 8 words.
template <typename T, int M>
AMBER_HOST_DEVICE void keys_of(const uint32_t (&word)[8], const float* scale, int begin, uint32_t (&key)[M]) {
  AMBER_UNROLL
  for (int i = 0; i < M; ++i) {
    const uint32_t two = word[(begin + i) / 2];
    const auto bits = static_cast<uint16_t>((begin + i) % 2 ? two >> 16 : two & 0xffffu);
    key[i] = score_key(widen(T{bits}), scale[begin + i]);
  }
}

// The four columns of a window, two words, from 16 columns.
struct WindowWords {
  uint32_t low, high;
};

AMBER_HOST_DEVICE WindowWords window_words(const uint32_t (&word)[8], int window) {
  if (window < kQuads) return {word[2 * window], word[2 * window + 1]};
  const int column = copied_column(window - kQuads);
  const uint32_t halves = column % 2 ? 0x7632u : 0x5410u;
  return {pick_bytes(word[column / 2], word[2 + column / 2], halves),
          pick_bytes(word[4 + column / 2], word[6 + column / 2], halves)};
}

// ---- patterns whose windows are tournaments, which say all that it takes to gather the survivors

template <Selection S>
inline constexpr bool kByTournaments = pattern_of(S) == Pattern{2, 4} || pattern_of(S) == Pattern{10, 16, true};

// A tournament for each window.
template <Selection S>
AMBER_HOST_DEVICE void play(const uint32_t (&key)[kWindowColumns], uint32_t (&outcome)[kQuads + kExtraWindows<S>]) {
  if constexpr (kExtraWindows<S> == 0) {
    AMBER_UNROLL
    for (int i = 0; i < kQuads; ++i) {
      outcome[i] = tournament_2_4(key[4 * i], key[4 * i + 1], key[4 * i + 2], key[4 * i + 3]);
    }
  } else {
    const WindowTournaments<uint32_t> of = tournaments_10_16(key);
    AMBER_UNROLL
    for (int window = 0; window <= kQuads; ++window) outcome[window] = of.outcome[window];
  }
}

// `nibbles`, and below them that of a tournament.
AMBER_HOST_DEVICE uint32_t push_nibble(uint32_t nibbles, uint32_t outcome) {
#if defined(__CUDA_ARCH__)
  return __funnelshift_l(outcome, nibbles, 4);
#else
  return nibbles << 4 | outcome >> 28;
#endif
}

template <typename T, Selection S>
AMBER_HOST_DEVICE Compressed16<S> compress_by_tournaments(const uint32_t (&word)[8], const float* scale) {
  constexpr int kWindows = kQuads + kExtraWindows<S>;
  uint32_t key[kWindowColumns], outcome[kWindows];
  keys_of<T>(word, scale, 0, key);
  play<S>(key, outcome);
  Compressed16<S> out;
  out.nibbles = 0;
  AMBER_UNROLL
  for (int window = kWindows - 1; window >= 0; --window) {
    const WindowWords columns = window_words(word, window);
    out.pair[window] = pick_bytes(columns.low, columns.high, outcome[window]);
    out.nibbles = push_nibble(out.nibbles, outcome[window]);
  }
  return out;
}

// ---- the others: a mask of the survivors, then a slot for each

// Columns `first` and `second` of four, two words. Element i is bytes 2i and 2i + 1.
AMBER_HOST_DEVICE uint32_t pick_pair(uint32_t low, uint32_t high, uint32_t nibble) {
  const uint32_t first = nibble & 3u, second = nibble >> 2;
  return pick_bytes(low, high, (0x0010u + 0x0022u * first) | (0x1000u + 0x2200u * second));
}

// The survivors of 16 columns.
template <typename T, Selection S>
AMBER_HOST_DEVICE uint32_t survivors_of_16(const uint32_t (&word)[8], const float* scale) {
  constexpr Pattern kPattern = pattern_of(S);
  uint32_t kept = 0;
  AMBER_UNROLL
  for (int begin = 0; begin < kWindowColumns; begin += kPattern.m) {
    uint32_t key[kPattern.m];
    keys_of<T>(word, scale, begin, key);
    if constexpr (kPattern.windowed) {
      kept |= survivors_windowed<kExtraWindows<S>>(key) << begin;
    } else {
      kept |= survivors<kPattern.m>(key, kPattern.n) << begin;
    }
  }
  return kept;
}

// One window: its four columns in two words, and which of them it keeps. Unused slots are +0.
template <Selection S>
AMBER_HOST_DEVICE uint32_t compress_window(const WindowWords& columns, uint32_t used, uint32_t& nibble) {
  constexpr bool kHasUnused = kWindowColumns / pattern_of(S).m * pattern_of(S).n < 2 * (kQuads + kExtraWindows<S>);
  nibble = metadata_nibble(kHasUnused ? fill_window(used) : used);
  uint32_t pair = pick_pair(columns.low, columns.high, nibble);
  if constexpr (kHasUnused) {
    if (!(used >> (nibble & 3u) & 1u)) pair &= 0xffff0000u;
    if (!(used >> (nibble >> 2) & 1u)) pair &= 0x0000ffffu;
  }
  return pair;
}

template <typename T, Selection S>
AMBER_HOST_DEVICE Compressed16<S> compress_by_mask(const uint32_t (&word)[8], const float* scale) {
  constexpr int kExtra = kExtraWindows<S>;
  const Slots slots = assign_slots<kExtra>(survivors_of_16<T, S>(word, scale));
  Compressed16<S> out;
  out.nibbles = 0;
  AMBER_UNROLL
  for (int window = 0; window < kQuads + kExtra; ++window) {
    const uint32_t used = window < kQuads ? slots.quads >> (4 * window) & 0xfu : slots.extra[window - kQuads];
    uint32_t nibble;
    out.pair[window] = compress_window<S>(window_words(word, window), used, nibble);
    out.nibbles |= nibble << (4 * window);
  }
  return out;
}

// 16 columns, 8 words, under `scale` [16].
template <typename T, Selection S>
AMBER_HOST_DEVICE Compressed16<S> compress_16_columns(const uint32_t (&word)[8], const float* scale) {
  if constexpr (kByTournaments<S>) {
    return compress_by_tournaments<T, S>(word, scale);
  } else {
    return compress_by_mask<T, S>(word, scale);
  }
}

// The nibbles of the copies of 32 columns, `Extra` bytes, which begin at column k of row t.
template <int Extra>
AMBER_HOST_DEVICE void store_copies_metadata(uint8_t* metadata, MetadataLayout layout, int64_t t, int64_t k,
                                             int64_t padded_rows, uint32_t nibbles) {
  uint8_t* to = metadata + nibble_address(layout, t, k, padded_rows).byte;
  if constexpr (Extra == 1) {
    *to = static_cast<uint8_t>(nibbles);
  } else {
    *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(nibbles);
  }
}

}  // namespace amber::cuda
