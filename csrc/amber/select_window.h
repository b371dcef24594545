// The choice of survivors under a window layout: the one definition that the CPU and CUDA kernels share.
//
// Columns are taken in the order of their scores (ties: the lower column) whenever they still fit. The two
// best of a quad always fit, so they need no test: before the second of them is reached, its quad holds at
// most one other column. That leaves eight columns to merge, two of each quad, and to try in turn.
#pragma once

#include "amber/window.h"

namespace amber {

// Works on one group (Key = uint32_t, on a CPU or a GPU) or on one group a lane (Key = a vector of 32-bit
// integers): `condition ? a : b` chooses by lane then.

// A mask of 16 columns: all that fit of the best. Keys of score_key's order.
template <int Extra, typename Key>
AMBER_HOST_DEVICE Key survivors_windowed(const Key (&key)[kWindowColumns]) {
  const Key none = {}, one = none + 1;
  Key kept = none;
  Key rest_key[kQuads][2] = {}, rest_column[kQuads][2] = {};
  AMBER_UNROLL
  for (int quad = 0; quad < kQuads; ++quad) {
    const Key* k = key + 4 * quad;
    Key rank[4] = {none, none, none, none};
    AMBER_UNROLL
    for (int i = 0; i < 4; ++i) {
      AMBER_UNROLL
      for (int j = i + 1; j < 4; ++j) {
        const Key i_first = k[i] >= k[j] ? one : none;
        rank[j] += i_first;
        rank[i] += one - i_first;
      }
    }
    AMBER_UNROLL
    for (int i = 0; i < 4; ++i) {
      const Key column = none + (4 * quad + i);
      kept |= rank[i] < none + 2 ? one << column : none;
      AMBER_UNROLL
      for (int place = 0; place < 2; ++place) {
        const auto here = rank[i] == none + (2 + place);
        rest_key[quad][place] = here ? k[i] : rest_key[quad][place];
        rest_column[quad][place] = here ? column : rest_column[quad][place];
      }
    }
  }

  // The eight others by rank, a nibble each. Within a quad the order is known; between two quads the
  // lower one wins ties.
  Key rank[kQuads][2];
  AMBER_UNROLL
  for (int quad = 0; quad < kQuads; ++quad) {
    rank[quad][0] = none;
    rank[quad][1] = one;
  }
  AMBER_UNROLL
  for (int a = 0; a < kQuads; ++a) {
    AMBER_UNROLL
    for (int b = a + 1; b < kQuads; ++b) {
      AMBER_UNROLL
      for (int pair = 0; pair < 4; ++pair) {
        const Key a_first = rest_key[a][pair / 2] >= rest_key[b][pair % 2] ? one : none;
        rank[b][pair % 2] += a_first;
        rank[a][pair / 2] += one - a_first;
      }
    }
  }
  Key order = none;
  AMBER_UNROLL
  for (int quad = 0; quad < kQuads; ++quad) {
    AMBER_UNROLL
    for (int place = 0; place < 2; ++place) order |= rest_column[quad][place] << (4 * rank[quad][place]);
  }

  AMBER_UNROLL
  for (int turn = 0; turn < 8; ++turn) {
    const Key bit = one << ((order >> (4 * turn)) & 15);
    kept |= fits<Extra>(kept | bit) ? bit : none;
  }
  return kept;
}

}  // namespace amber
