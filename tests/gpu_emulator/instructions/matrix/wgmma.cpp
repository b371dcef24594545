// wgmma.mma_async and its sparse form: operands in shared memory, groups, and what a wait finishes.
#include <algorithm>

#include "instructions/matrix/product.h"
#include "machine/options.h"
#include "machine/shared_memory.h"

namespace emu {
namespace {

struct Descriptor {
  u32 start, leading, stride;
  int base_offset, swizzle;
};
Descriptor read_descriptor(u64 d) {
  return {static_cast<u32>(d & 0x3fff) << 4, static_cast<u32>(d >> 16 & 0x3fff) << 4,
          static_cast<u32>(d >> 32 & 0x3fff) << 4, static_cast<int>(d >> 49 & 7), static_cast<int>(d >> 62)};
}

// The address of 16 bytes: row `r` and `chunk` 16-byte columns on, of an operand that is contiguous along K.
u32 operand_address(const Descriptor& d, int r, int chunk) {
  const u32 group = static_cast<u32>(r / 8), row = static_cast<u32>(r % 8);
  switch (d.swizzle) {
    case 0:
      return d.start + group * d.stride + static_cast<u32>(chunk) * d.leading + row * 16;
    case 1: {
      const u32 a = d.start + group * d.stride + row * 128 + static_cast<u32>(chunk) * 16;
      return a ^ (a >> 3 & 0x70u);
    }
    case 2: {
      const u32 a = d.start + group * d.stride + row * 64 + static_cast<u32>(chunk) * 16;
      return a ^ (a >> 3 & 0x30u);
    }
    default: {
      const u32 a = d.start + group * d.stride + row * 32 + static_cast<u32>(chunk) * 16;
      return a ^ (a >> 3 & 0x10u);
    }
  }
}

const Tile& operand_b(Warp& w, const Op& o, u64 descriptor) {
  Cta& cta = *w.cta;
  for (const Tile& t : cta.tiles) {
    if (t.op == &o && t.descriptor == descriptor && t.epoch == cta.shared_epoch) return t;
  }
  Tile& t = cta.tiles[cta.next_tile++ % cta.tiles.size()];
  const int n = static_cast<int>(o.wide->e), k = o.vec;
  const u8 type = static_cast<u8>(o.wide->b);
  const int size = bytes_of(type), per_chunk = 16 / size;
  const Descriptor d = read_descriptor(descriptor);
  if (d.base_offset) violation(w, 0, "uses a matrix descriptor with a base offset, which is not modelled");
  t.values.resize(static_cast<size_t>(k) * n);
  for (int r = 0; r < n; ++r) {
    for (int chunk = 0; chunk < k / per_chunk; ++chunk) {
      const u8* from = async_read(w, cta, operand_address(d, r, chunk), 16, "wgmma");
      for (int e = 0; e < per_chunk; ++e)
        t.values[static_cast<size_t>(chunk * per_chunk + e) * n + r] = widen(type, from + e * size);
    }
  }
  t.op = &o, t.descriptor = descriptor, t.epoch = cta.shared_epoch;
  return t;
}

// type: A; wide->b: B; vec: K; wide->e: N; flags: 1 sparse, 2 saturating, 4 negate A, 8 negate B
void run_wgmma(Warp& w, const PendingMma& p) {
  const Op& o = *p.op;
  const bool sparse = o.flags & 1;
  const int n = static_cast<int>(o.wide->e), k = o.vec, size = bytes_of(o.type), per_chunk = 16 / size;
  Rows a;
  a.count = sparse ? k / 2 : k;
  if (p.a_registers.empty()) {
    const Descriptor d = read_descriptor(p.desc_a);
    if (d.base_offset) violation(w, 0, "uses a matrix descriptor with a base offset, which is not modelled");
    for (int r = 0; r < 16; ++r) {
      for (int chunk = 0; chunk < a.count / per_chunk; ++chunk) {
        const u8* from = async_read(w, *w.cta, operand_address(d, 16 * (w.id % 4) + r, chunk), 16, "wgmma");
        for (int e = 0; e < per_chunk; ++e) a.value[r][chunk * per_chunk + e] = widen(o.type, from + e * size);
      }
    }
  } else {
    const int per_register = 4 / size;
    for (size_t i = 0; i < p.a_registers.size() / kLanes; ++i) {
      for (int l = 0; l < kLanes; ++l) {
        const int row = l / 4 + 8 * static_cast<int>(i % 2),
                  column = per_register * (l % 4) + static_cast<int>(i / 2) * 4 * per_register;
        u8 raw[4];
        std::memcpy(raw, &p.a_registers[i * kLanes + l], 4);
        for (int e = 0; e < per_register; ++e) a.value[row][column + e] = widen(o.type, raw + e * size);
      }
    }
  }
  if (sparse) {
    expand_sparse(w, a, p.metadata.data(), size, static_cast<int>(o.imm), k, false);
  } else {
    for (auto& row : a.k) {
      for (int i = 0; i < k; ++i) row[i] = static_cast<u8>(i);
    }
  }
  if (bool(o.flags & 4) != bool(o.flags & 8)) {
    for (auto& row : a.value) {
      for (int i = 0; i < a.count; ++i) row[i] ^= 0x80000000u;
    }
  }
  const Tile& b = operand_b(w, o, p.desc_b);
  alignas(64) u32 acc[16 * kMaxN];
  if (p.scale_d) {
    load_accumulators(w, o.wide->rows, n, acc);
  } else {
    std::memset(acc, 0, sizeof(u32) * 16 * static_cast<size_t>(n));
  }
  if (is_integer(o.type)) {
    multiply_integer(a, reinterpret_cast<const i32*>(b.values.data()), n, reinterpret_cast<i32*>(acc), o.flags & 2);
  } else {
    multiply_float(a, reinterpret_cast<const float*>(b.values.data()), n, reinterpret_cast<float*>(acc));
  }
  store_accumulators(w, o.wide->rows, n, acc, !is_integer(o.type));
}

// a: descriptor of A (or rows2: its registers); b: descriptor of B; c: metadata; d: predicate scale-d, or target 1:
// constant
void wgmma(Warp& w, const Op& o, u32 m) {
  if (m != kAll) violation(w, 0, "executes wgmma with only some of its lanes");
  if (w.accumulators_dirty)
    violation(w, 0, "executes wgmma after writing or reading its accumulators without wgmma.fence");
  PendingMma p;
  p.op = &o;
  p.pc = w.pc;
  p.desc_b = w.row<u64>(o.b)[0];
  p.desc_a = 0;
  if (o.wide->rows2.empty()) {
    p.desc_a = w.row<u64>(o.a)[0];
  } else {
    for (u32 row : o.wide->rows2) p.a_registers.insert(p.a_registers.end(), w.row<u32>(row), w.row<u32>(row) + kLanes);
  }
  for (int i = 1; i < kLanes; ++i) {
    if (w.row<u64>(o.b)[i] != p.desc_b || (o.wide->rows2.empty() && w.row<u64>(o.a)[i] != p.desc_a))
      violation(w, i, "has another matrix descriptor than lane 0");
  }
  if (o.wide->c) {
    const u32 scale = w.predicates[o.d];
    if (scale != 0 && scale != kAll) violation(w, 0, "has different scale-d in its lanes");
    p.scale_d = scale != 0;
  } else {
    p.scale_d = o.wide->a != 0;
  }
  if (o.flags & 1) std::memcpy(p.metadata.data(), w.row<u32>(o.c), sizeof p.metadata);
  w.mma_groups.back().push_back(std::move(p));
  ++w.pending_mmas;
  if (!Options::get().lazy_wgmma) finish_mmas(w);
}

void wgmma_fence(Warp& w, const Op&, u32) { w.accumulators_dirty = false; }

void wgmma_commit(Warp& w, const Op&, u32) {
  w.mma_groups.emplace_back();
  ++w.mma_committed;
}

void finish_group(Warp& w) {
  const int pc = w.pc;
  for (const PendingMma& p : w.mma_groups.front()) {
    w.pc = p.pc;
    run_wgmma(w, p);
    --w.pending_mmas;
  }
  w.pc = pc;
  w.mma_groups.pop_front();
  ++w.mma_finished;
}

// The four warps of a warpgroup multiply together: a group is done only when all of them have committed it, and
// then for all of them.
void wgmma_wait(Warp& w, const Op& o, u32) {
  const u64 target = w.mma_committed > o.imm ? w.mma_committed - o.imm : 0;
  Cta& cta = *w.cta;
  const size_t first = static_cast<size_t>(w.id / 4 * 4);
  if (first + 4 > cta.warps.size()) violation(w, 0, "executes wgmma in a warpgroup of fewer than four warps");
  for (size_t i = first; i < first + 4; ++i) {
    if (cta.warps[i].state != State::kDone && cta.warps[i].mma_committed < target) {
      w.blocked = true;
      return;
    }
  }
  w.stats->in_flight["wait_group " + std::to_string(o.imm) + ", " + std::to_string(w.mma_committed - w.mma_waited) +
                     " in flight"] += 1;
  w.mma_waited = std::max(w.mma_waited, target);
  for (size_t i = first; i < first + 4; ++i) {
    while (cta.warps[i].mma_finished < target) finish_group(cta.warps[i]);
  }
  ++w.cluster->progress;
}

}  // namespace

// All operations of this warp at once: its accumulators are needed.
void finish_mmas(Warp& w) {
  const int pc = w.pc;
  for (auto& group : w.mma_groups) {
    for (const PendingMma& p : group) {
      w.pc = p.pc;
      run_wgmma(w, p);
      --w.pending_mmas;
    }
    group.clear();
  }
  w.pc = pc;
}

bool decode_wgmma(Decoder& d, const Instruction& in, Op& op) {
  const std::string& name = in.parts[0];
  const auto& o = in.operands;
  if (name != "wgmma") return false;
  op.cls = Class::kMatrix;
  op.flow = Flow::kConverge;
  const std::string& what = in.parts[1];
  if (what == "fence") {
    op.run = wgmma_fence;
    return true;
  }
  if (what == "commit_group") {
    op.run = wgmma_commit;
    return true;
  }
  if (what == "wait_group") {
    op.imm = o[0].value;
    op.run = wgmma_wait;
    return true;
  }
  if (what != "mma_async") return false;
  const bool sparse = in.has("sp");
  const Shape s = shape_of(in);
  const Type b = type_of(in.parts[in.parts.size() - 1 - in.has("satfinite")]),
             a = type_of(in.parts[in.parts.size() - 2 - in.has("satfinite")]);
  const std::string& result = in.parts[in.parts.size() - 3 - in.has("satfinite")];
  if (s.m != 64 || s.n > kMaxN || a == kNone || b == kNone || (result != "f32" && result != "s32")) return false;
  if (s.k != (sparse ? 2 : 1) * 32 / bytes_of(a)) return false;
  op.type = a;
  op.vec = static_cast<u8>(s.k);
  op.flags = static_cast<u8>(sparse | (in.has("satfinite") ? 2 : 0));
  op.wide = std::make_unique<WideOperand>();
  op.wide->b = b;
  op.wide->e = static_cast<u64>(s.n);
  for (const Operand& x : o[0].items) op.wide->rows.push_back(d.destination(x));
  if (static_cast<int>(op.wide->rows.size()) != s.n / 2) return false;
  if (o[1].kind == Operand::kVector) {
    for (const Operand& x : o[1].items) op.wide->rows2.push_back(d.source(x, 32));
  } else {
    op.a = d.source(o[1], 64);
  }
  op.b = d.source(o[2], 64);
  size_t at = 3;
  if (sparse) {
    op.c = d.source(o[at], 32);
    op.imm = o[at + 1].value;
    at += 2;
  }
  if (o[at].kind == Operand::kImmediate) {
    op.wide->a = o[at].value;
  } else {
    op.wide->c = 1;
    op.d = d.predicate(o[at]);
    if (o[at].negated) return false;
  }
  ++at;
  if (!is_integer(a)) {
    if (static_cast<i32>(o[at].value) == -1) op.flags |= 4;
    if (static_cast<i32>(o[at + 1].value) == -1) op.flags |= 8;
    at += 2;
    if (bytes_of(a) == 2) {
      // Only operands that are contiguous along K.
      for (; at < o.size(); ++at) {
        if (o[at].value != 0) return false;
      }
    }
  }
  op.run = wgmma;
  return true;
}

}  // namespace emu
