// mma.sync and mma.sp of m16n8.
#include "instructions/matrix/product.h"

namespace emu {
namespace {

// wide->rows: D, rows2: A, rows3: B, rows4: C. type: operands; vec: K;
// flags: 1 sparse, 2 saturating; c: metadata row; imm: selector
void mma(Warp& w, const Op& o, u32 m) {
  if (m != kAll) violation(w, 0, "executes mma with only some of its lanes");
  const bool sparse = o.flags & 1;
  const int size = bytes_of(o.type), k = o.vec, per_register = 4 / size;
  const int a_columns = sparse ? k / 2 : k;
  Rows a;
  a.count = a_columns;
  // A: register i covers row g + 8 * (i % 2), columns per_register * t + (i / 2) * 4 * per_register.
  for (size_t i = 0; i < o.wide->rows2.size(); ++i) {
    const u32* reg = w.row<u32>(o.wide->rows2[i]);
    for (int l = 0; l < kLanes; ++l) {
      const int row = l / 4 + 8 * static_cast<int>(i % 2),
                column = per_register * (l % 4) + static_cast<int>(i / 2) * 4 * per_register;
      for (int e = 0; e < per_register; ++e) {
        u8 raw[4];
        std::memcpy(raw, &reg[l], 4);
        a.value[row][column + e] = widen(o.type, raw + e * size);
        a.k[row][column + e] = static_cast<u8>(column + e);
      }
    }
  }
  if (sparse) {
    u32 metadata[kLanes];
    std::memcpy(metadata, w.row<u32>(o.c), sizeof metadata);
    expand_sparse(w, a, metadata, size, static_cast<int>(o.imm), k, true);
  }
  alignas(64) u32 b[kMaxK * 8];
  for (size_t i = 0; i < o.wide->rows3.size(); ++i) {
    const u32* reg = w.row<u32>(o.wide->rows3[i]);
    for (int l = 0; l < kLanes; ++l) {
      const int row = per_register * (l % 4) + static_cast<int>(i) * 4 * per_register;
      u8 raw[4];
      std::memcpy(raw, &reg[l], 4);
      for (int e = 0; e < per_register; ++e)
        b[(row + e) * 8 + l / 4] = widen(o.wide->a ? static_cast<u8>(o.wide->b) : o.type, raw + e * size);
    }
  }
  alignas(64) u32 acc[16 * 8];
  load_accumulators(w, o.wide->rows4, 8, acc);
  if (is_integer(o.type)) {
    multiply_integer(a, reinterpret_cast<const i32*>(b), 8, reinterpret_cast<i32*>(acc), o.flags & 2);
  } else {
    multiply_float(a, reinterpret_cast<const float*>(b), 8, reinterpret_cast<float*>(acc));
  }
  store_accumulators(w, o.wide->rows, 8, acc, !is_integer(o.type));
}

}  // namespace

bool decode_mma(Decoder& d, const Instruction& in, Op& op) {
  const std::string& name = in.parts[0];
  const auto& o = in.operands;
  if (name == "mma") {
    const Shape s = shape_of(in);
    const bool sparse = in.parts[1] == "sp" || in.parts[1] == "sp::ordered_metadata";
    op.flow = Flow::kConverge;
    op.cls = Class::kMatrix;
    // ... .row.col.D.A.B.C
    size_t at = 0;
    while (at < in.parts.size() && in.parts[at] != "col") ++at;
    if (at + 4 >= in.parts.size() || s.m != 16 || s.n != 8) return false;
    const Type a = type_of(in.parts[at + 2]), b = type_of(in.parts[at + 3]);
    const std::string& result = in.parts[at + 1];
    if (a == kNone || b == kNone || bytes_of(a) != bytes_of(b) || (result != "f32" && result != "s32") ||
        is_integer(a) != (result == "s32"))
      return false;
    const int full = (sparse ? 2 : 1) * 32 / bytes_of(a);
    if (s.k != full) return false;  // the smaller K of each kind is not modelled
    if (s.k > kMaxK) return false;
    op.type = a;
    op.vec = static_cast<u8>(s.k);
    op.flags = static_cast<u8>(sparse | (in.has("satfinite") ? 2 : 0));
    op.wide = std::make_unique<WideOperand>();
    op.wide->a = 1, op.wide->b = b;
    for (const Operand& x : o[0].items) op.wide->rows.push_back(d.destination(x));
    for (const Operand& x : o[1].items) op.wide->rows2.push_back(d.source(x, 32));
    for (const Operand& x : o[2].items) op.wide->rows3.push_back(d.source(x, 32));
    for (const Operand& x : o[3].items) op.wide->rows4.push_back(d.source(x, 32));
    if (sparse) op.c = d.source(o[4], 32), op.imm = o[5].value;
    op.run = mma;
    return true;
  }
  return false;
}

}  // namespace emu
