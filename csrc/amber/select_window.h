// The choice of survivors under a window layout: the one definition that the CPU and CUDA kernels share.
//
// Columns are taken in the order of their scores (ties: the lower column) whenever they still fit. The two
// best of a quad always fit, so they need no test: before the second of them is reached, its quad holds at
// most one other column.
#pragma once

#include "amber/select.h"
#include "amber/window.h"

namespace amber {

// Works on one group (Key = uint32_t, on a CPU or a GPU) or on one group a lane (Key = a vector of 32-bit
// integers): `condition ? a : b` chooses by lane then. Keys of score_key's order.

// ---- one extra window, 10:16w: five tournaments
//
// Two quads keep a third column. A quad with three columns keeps column 3, for the extra window holds that column and
// no other: so it keeps column 3 and the best two of columns 0 to 2. One without a third keeps its best two. Either way
// its own window holds the best two of some columns, which a tournament finds; in the first case column 3 loses it by a
// key of 0 (on ties the lower column wins).
//
// Which column is the third? If column 3 is among the best two, the one that it displaced: the second best of columns
// 0 to 2. Else column 3. So it is the lesser of these two, and after the best two of its quad it is the only one that
// fits: of the four quads the two best thirds survive, as a tournament of the quads.
template <typename Key>
struct WindowTournaments {
  Key outcome[kQuads + 1];  // the extra window's columns are column 3 of each quad
};

template <typename Key>
AMBER_HOST_DEVICE WindowTournaments<Key> tournaments_10_16(const Key (&key)[kWindowColumns]) {
  const auto lesser = [](Key a, Key b) { return a < b ? a : b; };
  const auto greater = [](Key a, Key b) { return a < b ? b : a; };
  Key third[kQuads];
  AMBER_UNROLL
  for (int quad = 0; quad < kQuads; ++quad) {
    const Key* k = key + 4 * quad;
    third[quad] = lesser(k[3], greater(lesser(k[0], k[1]), lesser(greater(k[0], k[1]), k[2])));
  }
  WindowTournaments<Key> of;
  of.outcome[kQuads] = tournament_2_4(third[0], third[1], third[2], third[3]);
  AMBER_UNROLL
  for (int quad = 0; quad < kQuads; ++quad) {
    const Key* k = key + 4 * quad;
    const auto has_third = (tournament_mask(of.outcome[kQuads]) & (1 << quad)) != 0;
    of.outcome[quad] = tournament_2_4(k[0], k[1], k[2], has_third ? Key{} : k[3]);
  }
  return of;
}

template <typename Key>
AMBER_HOST_DEVICE Key survivors_10_16(const Key (&key)[kWindowColumns]) {
  const WindowTournaments<Key> of = tournaments_10_16(key);
  Key kept = {};
  AMBER_UNROLL
  for (int quad = 0; quad < kQuads; ++quad) {
    kept |= tournament_mask(of.outcome[quad]) << (4 * quad);
    kept |= (tournament_mask(of.outcome[kQuads]) >> quad & 1) << (4 * quad + copied_column(0));
  }
  return kept;
}

// ---- two extra windows, 12:16w: eight columns to merge, two of each quad, and to try in turn

template <typename Key>
AMBER_HOST_DEVICE Key survivors_12_16(const Key (&key)[kWindowColumns]) {
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
    kept |= fits<2>(kept | bit) ? bit : none;
  }
  return kept;
}

// A mask of 16 columns: all that fit of the best.
template <int Extra, typename Key>
AMBER_HOST_DEVICE Key survivors_windowed(const Key (&key)[kWindowColumns]) {
  if constexpr (Extra == 2) {
    return survivors_12_16(key);
  } else if constexpr (Extra == 1) {
    return survivors_10_16(key);
  } else {
    Key kept = {};
    for (int at = 0; at < kWindowColumns; at += 4) {
      kept |= tournament_mask(tournament_2_4(key[at], key[at + 1], key[at + 2], key[at + 3])) << at;
    }
    return kept;
  }
}

}  // namespace amber
