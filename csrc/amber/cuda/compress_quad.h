// Loads, stores and the compression of one quad, for host and device: what the compressing kernels share.
#pragma once

#include <cstring>

#include "amber/cuda/element.h"
#include "amber/metadata.h"
#include "amber/select.h"

namespace amber::cuda {

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

AMBER_HOST_DEVICE void store_16_bytes(void* to, const Words4& words) {
#if defined(__CUDA_ARCH__)
  *static_cast<uint4*>(to) = make_uint4(words.word[0], words.word[1], words.word[2], words.word[3]);
#else
  std::memcpy(to, &words, sizeof words);
#endif
}

// Bytes of {low, high} by the selector's nibbles, as the PRMT instruction picks them.
AMBER_HOST_DEVICE uint32_t pick_bytes(uint32_t low, uint32_t high, uint32_t selector) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(low, high, selector);
#else
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  uint32_t picked = 0;
  for (int i = 0; i < 4; ++i) {
    picked |= static_cast<uint32_t>(bytes >> (8 * ((selector >> (4 * i)) & 7u)) & 0xffu) << (8 * i);
  }
  return picked;
#endif
}

// Compresses 4 columns, two words: the kept two as the result, and their nibble.
template <typename T>
AMBER_HOST_DEVICE uint32_t compress_quad(uint32_t low, uint32_t high, const float* scale,
                                         uint32_t& nibble) {
  const uint32_t key[4] = {
      score_key(widen(T{static_cast<uint16_t>(low & 0xffffu)}), scale[0]),
      score_key(widen(T{static_cast<uint16_t>(low >> 16)}), scale[1]),
      score_key(widen(T{static_cast<uint16_t>(high & 0xffffu)}), scale[2]),
      score_key(widen(T{static_cast<uint16_t>(high >> 16)}), scale[3])};
  nibble = metadata_nibble(survivors_2_4(key));
  // Element i is bytes 2i and 2i + 1.
  const uint32_t first = nibble & 3u, second = nibble >> 2;
  return pick_bytes(low, high, (0x0010u + 0x0022u * first) | (0x1000u + 0x2200u * second));
}

}  // namespace amber::cuda
