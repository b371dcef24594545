// Handlers that compute on the 32 lanes at once, from an expression of a lane's values.
#pragma once

#include <string>
#include <unordered_map>

#include "instructions/decode.h"

namespace emu {

// By name, modifiers that change the result, and type.
using Table = std::unordered_map<std::string, Handler>;
const Table& integer_table();
const Table& float_table();
const Table& half_table();

// D, A, B, C: how rows are read and written; 16-bit registers are rows of 32-bit lanes whose upper half is zero.
template <typename D, typename A, typename F>
inline void map1(Warp& w, const Op& o, u32 m, F f) {
  const A* a = w.row<A>(o.a);
  alignas(64) D t[kLanes];
  for (int i = 0; i < kLanes; ++i) t[i] = f(a[i]);
  put(w.row<D>(o.d), t, m);
}

template <typename D, typename A, typename B, typename F>
inline void map2(Warp& w, const Op& o, u32 m, F f) {
  const A* a = w.row<A>(o.a);
  const B* b = w.row<B>(o.b);
  alignas(64) D t[kLanes];
  for (int i = 0; i < kLanes; ++i) t[i] = f(a[i], b[i]);
  put(w.row<D>(o.d), t, m);
}

template <typename D, typename A, typename B, typename C, typename F>
inline void map3(Warp& w, const Op& o, u32 m, F f) {
  const A* a = w.row<A>(o.a);
  const B* b = w.row<B>(o.b);
  const C* c = w.row<C>(o.c);
  alignas(64) D t[kLanes];
  for (int i = 0; i < kLanes; ++i) t[i] = f(a[i], b[i], c[i]);
  put(w.row<D>(o.d), t, m);
}

#define OP1(D, A, E) [](Warp& w, const Op& o, u32 m) { map1<D, A>(w, o, m, [](A a) -> D { return E; }); }
#define OP2(D, A, B, E) [](Warp& w, const Op& o, u32 m) { map2<D, A, B>(w, o, m, [](A a, B b) -> D { return E; }); }
#define OP3(D, A, B, C, E) \
  [](Warp& w, const Op& o, u32 m) { map3<D, A, B, C>(w, o, m, [](A a, B b, C c) -> D { return E; }); }

}  // namespace emu
