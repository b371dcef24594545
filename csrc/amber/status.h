// Result codes of the torch-free library. The caller knows the numbers, so the caller writes the
// sentence; `describe` gives what is allowed.
#pragma once

namespace amber {

enum class Status {
  kOk,
  kInvalidPattern,
  kColsNotMultipleOfM,
  kNegativeSize,
  kNullPointer,
  kElementSizeMismatch,
  kMaskNotTwoOfFour,
  kMaskDoesNotFit,
  kNeedsVnni,
};

constexpr const char* describe(Status status) {
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kInvalidPattern:
      return "the pattern must be N:M with 1 <= N <= M <= 32, 10:16w or 12:16w";
    case Status::kColsNotMultipleOfM:
      return "the number of columns K must be a multiple of M";
    case Status::kNegativeSize:
      return "sizes must not be negative";
    case Status::kNullPointer:
      return "input and output pointers must not be null";
    case Status::kElementSizeMismatch:
      return "the element size must be 2 bytes for a 16-bit metadata layout, 1 byte for an 8-bit one";
    case Status::kMaskNotTwoOfFour:
      return "the mask must keep exactly 2 of every 4 columns";
    case Status::kMaskDoesNotFit:
      return "the mask keeps columns that the windows have no slots for";
    case Status::kNeedsVnni:
      return "this CPU does not run it; it must have AVX-512 VNNI";
  }
  return "unknown status";
}

}  // namespace amber
