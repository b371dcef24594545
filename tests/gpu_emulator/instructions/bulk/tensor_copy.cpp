// The tensor memory accelerator: cp.async.bulk.tensor, and groups of bulk stores.
#include <algorithm>
#include <cstring>

#include "instructions/bulk/bulk.h"
#include "instructions/memory/access.h"
#include "machine/options.h"
#include "memory/tensor_map.h"

namespace emu {
namespace {

u32 swizzled(u32 address, int mode) {
  switch (mode) {
    case 1:
      return address ^ (address >> 3 & 0x10u);
    case 2:
      return address ^ (address >> 3 & 0x30u);
    case 3:
      return address ^ (address >> 3 & 0x70u);
  }
  return address;
}

struct Box {
  TensorMap map;
  i64 at[5];
  u64 bytes;
};

Box make_box(Warp& w, int lane, u64 map_address, const std::vector<u32>& coordinates) {
  Box box;
  if (map_address % 64) violation(w, lane, "uses a tensor map that is not 64-byte aligned");
  if (!find_allocation(*w.launch->memory, map_address)) violation(w, lane, "uses a tensor map outside device memory");
  std::memcpy(&box.map, reinterpret_cast<const void*>(map_address), sizeof box.map);
  if (box.map.magic != kTensorMapMagic) violation(w, lane, "uses a tensor map that was not encoded");
  if (box.map.rank != coordinates.size())
    violation(w, lane,
              "gives " + number(coordinates.size()) + " coordinates for a tensor map of rank " + number(box.map.rank));
  box.bytes = box.map.element_bytes;
  for (int d = 0; d < 5; ++d) {
    box.at[d] = d < box.map.rank ? static_cast<i32>(w.row<u32>(coordinates[d])[lane]) : 0;
    if (d >= box.map.rank) box.map.box[d] = 1, box.map.dims[d] = 1;
    if (d < box.map.rank && box.map.element_stride[d] != 1)
      violation(w, lane, "element strides of a tensor map are not modelled");
    box.bytes *= box.map.box[d];
  }
  return box;
}

// Calls f(smem offset, global address or 0 where out of bounds, bytes) for 16-byte pieces and smaller ones at edges.
template <typename F>
void each_row(const Box& b, F f) {
  const TensorMap& m = b.map;
  const u64 row_bytes = static_cast<u64>(m.box[0]) * m.element_bytes;
  u64 offset = 0;
  for (u32 i4 = 0; i4 < m.box[4]; ++i4) {
    for (u32 i3 = 0; i3 < m.box[3]; ++i3) {
      for (u32 i2 = 0; i2 < m.box[2]; ++i2) {
        for (u32 i1 = 0; i1 < m.box[1]; ++i1, offset += row_bytes) {
          const i64 c[5] = {b.at[0], b.at[1] + i1, b.at[2] + i2, b.at[3] + i3, b.at[4] + i4};
          bool inside = true;
          u64 address = m.address;
          for (int d = 1; d < m.rank; ++d) {
            inside = inside && c[d] >= 0 && c[d] < static_cast<i64>(m.dims[d]);
            address += static_cast<u64>(c[d]) * m.strides[d - 1];
          }
          const i64 first = std::max<i64>(0, -c[0]), last = std::min<i64>(m.box[0], static_cast<i64>(m.dims[0]) - c[0]);
          if (!inside || last <= first) {
            f(offset, row_bytes, u64{0}, u64{0}, u64{0});
          } else {
            const u64 from = static_cast<u64>(c[0] + first) * m.element_bytes;
            f(offset, row_bytes, static_cast<u64>(first) * m.element_bytes,
              static_cast<u64>(last - first) * m.element_bytes, address + from);
          }
        }
      }
    }
  }
}

void check_global(Warp& w, u64 address, u64 bytes, bool write) {
  Allocation* a = find_allocation(*w.launch->memory, address);
  if (!a || address - a->base + bytes > a->bytes) {
    violation(w, 0,
              std::string("a bulk copy ") + (write ? "writes" : "reads") + " global memory out of bounds" +
                  (a ? " (byte " + number(address - a->base) + " + " + number(bytes) + " of an allocation of " +
                           number(a->bytes) + ")"
                     : ""));
  }
  u8* shadow = a->shadow + (address - a->base);
  for (u64 i = 0; i < bytes; ++i) {
    if (write) {
      shadow[i] |= kWritten | kStored;
    } else {
      if (!(shadow[i] & kWritten) && Options::get().check_uninitialised) {
        violation(w, 0,
                  "a bulk copy reads uninitialised global memory (byte " + number(address - a->base + i) +
                      " of an allocation of " + number(a->bytes) + ")");
      }
      shadow[i] |= kLoaded;
    }
  }
}

// Stores come much later than loads: they need not be quick, and a buffer that is used again too early then shows.
void schedule(Warp& w, bool store, std::function<void()> land) {
  Cluster& c = *w.cluster;
  const int delay = Options::get().async_delay * (store ? 16 : 1);
  if (delay <= 0) return land();
  // Not always the same delay, so that copies overtake each other.
  static thread_local u32 state = 12345;
  state = state * 1664525u + 1013904223u;
  const u64 due = c.turn + 1 + (state >> 16) % static_cast<u32>(2 * delay);
  auto at = c.events.end();
  while (at != c.events.begin() && (at - 1)->due > due) --at;
  c.events.insert(at, Event{due, std::move(land)});
}

void write_shared(Cta& cta, u32 address, const u8* from, u64 bytes, int swizzle) {
  // In pieces that the swizzle keeps together.
  while (bytes > 0) {
    const u32 piece = static_cast<u32>(std::min<u64>(bytes, 16 - address % 16));
    const u32 to = swizzled(address, swizzle);
    if (from) {
      std::memcpy(cta.shared.data() + to, from, piece);
      from += piece;
    } else {
      std::memset(cta.shared.data() + to, 0, piece);
    }
    std::memset(cta.shared_shadow.data() + to, 1, piece);
    address += piece, bytes -= piece;
  }
}

// o.a/offset: destination; o.b: tensor map; wide->rows: coordinates; wide->a: row of the mbarrier address,
// wide->b: its width, wide->c: its offset; o.c: row of the mask where o.type
void tensor_load(Warp& w, const Op& o, u32 m) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(m >> lane & 1u)) continue;
    const Box box = make_box(w, lane, w.row<u64>(o.b)[lane] + o.imm, o.wide->rows);
    const u32 to = address32(w, o, lane);
    u32 bar = (o.wide->b == 64 ? static_cast<u32>(w.row<u64>(static_cast<u32>(o.wide->a))[lane])
                               : w.row<u32>(static_cast<u32>(o.wide->a))[lane]) +
              static_cast<u32>(o.wide->c);
    if (shared_offset(to) % 128)
      violation(w, lane, "loads a tensor tile to shared memory that is not 128-byte aligned");
    u32 mask;
    if (o.type) {
      mask = w.row<u32>(o.c)[lane] & 0xffffu;
      if (mask >> w.cluster->ctas.size())
        violation(w, lane, "multicasts to mask " + number(mask) + " in a cluster of " + number(w.cluster->ctas.size()));
    } else {
      mask = 1u << shared_owner(w, lane, to).rank;
    }
    for (Cta& cta : w.cluster->ctas) {
      if ((mask >> cta.rank & 1u) && shared_offset(to) + box.bytes > cta.shared.size())
        violation(w, lane, "loads a tensor tile beyond shared memory");
    }
    const u32 bar_rank = shared_owner(w, lane, bar).rank;
    bar = shared_offset(bar);
    w.stats->tma_loads += 1;
    Warp* warp = &w;
    const int pc = w.pc;
    const bool multicast = o.type;
    schedule(w, false, [=] {
      Warp& self = *warp;
      self.pc = pc;
      u64 in_bounds = 0;
      each_row(box, [&](u64 offset, u64 row_bytes, u64 skip, u64 bytes, u64 from) {
        if (bytes) check_global(self, from, bytes, false);
        in_bounds += bytes;
        for (Cta& cta : self.cluster->ctas) {
          if (!(mask >> cta.rank & 1u)) continue;
          const u32 at = shared_offset(to) + static_cast<u32>(offset);
          write_shared(cta, at, nullptr, skip, box.map.swizzle);
          if (bytes)
            write_shared(cta, at + static_cast<u32>(skip), reinterpret_cast<const u8*>(from), bytes, box.map.swizzle);
          write_shared(cta, at + static_cast<u32>(skip + bytes), nullptr, row_bytes - skip - bytes, box.map.swizzle);
        }
      });
      self.stats->tma_load_bytes += in_bounds;
      for (Cta& cta : self.cluster->ctas) {
        if (!(mask >> cta.rank & 1u)) continue;
        ++cta.shared_epoch;
        complete_tx(self, lane, remote_address(multicast ? cta.rank : bar_rank, bar), box.bytes);
      }
    });
  }
}

// Whether two lanes name the same tile. CUTLASS lets a whole warp execute a tensor store; the hardware, which takes
// uniform operands, does it once.
bool same_tile(const Warp& w, const Op& o, int a, int b) {
  bool same = w.row<u64>(o.b)[a] == w.row<u64>(o.b)[b] && address32(w, o, a) == address32(w, o, b);
  for (u32 row : o.wide->rows) same = same && w.row<u32>(row)[a] == w.row<u32>(row)[b];
  return same;
}

void tensor_store(Warp& w, const Op& o, u32 m) {
  const int leader = __builtin_ctz(m);
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(m >> lane & 1u) || (lane != leader && same_tile(w, o, leader, lane))) continue;
    const Box box = make_box(w, lane, w.row<u64>(o.b)[lane] + o.imm, o.wide->rows);
    const u32 from = address32(w, o, lane);
    if (shared_offset(from) % 128)
      violation(w, lane, "stores a tensor tile from shared memory that is not 128-byte aligned");
    if (!w.bulk_open[lane]) w.bulk_open[lane] = std::make_shared<int>(0);
    std::shared_ptr<int> left = w.bulk_open[lane];
    ++*left;
    w.stats->tma_stores += 1;
    Warp* warp = &w;
    Cta* cta = &shared_owner(w, lane, from);
    const int pc = w.pc;
    schedule(w, true, [=] {
      Warp& self = *warp;
      self.pc = pc;
      each_row(box, [&](u64 offset, u64, u64 skip, u64 bytes, u64 to) {
        if (!bytes) return;
        check_global(self, to, bytes, true);
        self.stats->tma_store_bytes += bytes;
        u32 at = shared_offset(from) + static_cast<u32>(offset + skip);
        u8* global = reinterpret_cast<u8*>(to);
        while (bytes > 0) {
          const u32 piece = static_cast<u32>(std::min<u64>(bytes, 16 - at % 16));
          std::memcpy(global, async_read(self, *cta, swizzled(at, box.map.swizzle), piece, "a tensor store"), piece);
          at += piece, bytes -= piece, global += piece;
        }
      });
      --*left;
    });
  }
}

void bulk_commit(Warp& w, const Op&, u32 m) {
  for (int i = 0; i < kLanes; ++i) {
    if (!(m >> i & 1u)) continue;
    w.bulk_groups[i].push_back(w.bulk_open[i] ? w.bulk_open[i] : std::make_shared<int>(0));
    w.bulk_open[i] = nullptr;
  }
}

void bulk_wait(Warp& w, const Op& o, u32 m) {
  for (int i = 0; i < kLanes; ++i) {
    if (!(m >> i & 1u)) continue;
    auto& groups = w.bulk_groups[i];
    while (!groups.empty() && *groups.front() == 0) groups.erase(groups.begin());
    for (size_t g = 0; g + o.imm < groups.size(); ++g) {
      if (*groups[g] != 0) w.blocked = true;
    }
  }
}

}  // namespace

bool decode_bulk(Decoder& d, const Instruction& in, Op& op) {
  const std::string& name = in.parts[0];
  const auto& o = in.operands;
  if (name == "cp" && in.parts.size() > 2 && in.parts[1] == "async" && in.parts[2] == "bulk") {
    op.cls = Class::kTma;
    if (in.has("commit_group")) {
      op.run = bulk_commit;
      return true;
    }
    if (in.has("wait_group")) {
      op.flow = Flow::kBlock;
      op.imm = o[0].value;
      op.run = bulk_wait;
      return true;
    }
    if (in.has("prefetch")) {
      op.run = nothing;
      return true;
    }
    if (!in.has("tensor") || in.has("im2col") || in.has("tile::gather4")) return false;
    op.wide = std::make_unique<WideOperand>();
    const auto tensor = [&](const Operand& x) {
      if (x.items.size() != 2 || x.items[1].kind != Operand::kVector) throw std::runtime_error("tensor operand");
      op.b = d.source(x.items[0], 64);
      op.imm = static_cast<u64>(x.offset);
      for (const Operand& c : x.items[1].items) op.wide->rows.push_back(d.source(c, 32));
    };
    if (in.parts.at(5) == "shared::cluster" || in.parts.at(5) == "shared::cta") {
      if (!in.has("mbarrier::complete_tx::bytes")) return false;
      d.address(o[0], op);
      tensor(o[1]);
      Op bar;
      d.address(o[2], bar);
      op.wide->a = bar.a, op.wide->b = bar.flags & 1 ? 64 : 32, op.wide->c = static_cast<u64>(bar.offset);
      if (in.has("multicast::cluster")) {
        op.type = 1;
        op.c = d.source(o[3], 16);
      }
      op.run = tensor_load;
      return true;
    }
    if (in.parts.at(5) == "global" && in.has("bulk_group")) {
      tensor(o[0]);
      d.address(o[1], op);
      op.run = tensor_store;
      return true;
    }
    return false;
  }
  return false;
}

}  // namespace emu
