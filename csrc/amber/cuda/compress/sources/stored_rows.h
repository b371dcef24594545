// Where the compressing kernels' rows come from: rows that lie in memory. Others stand beside this file.
//
// A source is made for one row or column of an input and gives 8 elements, four words, at an offset from there. Loading
// them stands apart from making them, so that a kernel may issue all its loads first.
#pragma once

#include "amber/cuda/compress/compress_columns.h"

namespace amber::cuda {

template <typename T>
struct StoredRows {
  using Loaded = Words4;
  static constexpr int kTensors = 1;  // that a row is loaded from

  const uint16_t* x;

  // From element `at` on of an operator's arguments.
  template <typename Args>
  AMBER_HOST_DEVICE StoredRows from(const Args& args, int64_t at) {
    return {static_cast<const uint16_t*>(args.x) + at};
  }
  AMBER_HOST_DEVICE Loaded load(const StoredRows& of, int64_t at) { return load_streaming(of.x + at); }
  AMBER_HOST_DEVICE Words4 words(const Loaded& loaded) { return loaded; }
};

}  // namespace amber::cuda
