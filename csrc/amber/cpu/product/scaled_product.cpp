#include "amber/cpu/product/scaled_product.h"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "amber/cpu/isa.h"
#include "amber/cpu/product/scaled_product_vnni.h"
#include "amber/cpu/subnormals.h"

namespace amber::cpu {
namespace {

// A task is one panel and this many tokens: whole tiles. Two threads that share a panel both rearrange it, which takes
// as long as the product of about six tokens.
constexpr int64_t kTaskTokens = 96;

int64_t blocks_of(int64_t size, int64_t block) { return (size + block - 1) / block; }

struct AlignedDelete {
  void operator()(uint8_t* bytes) const { ::operator delete[](bytes, std::align_val_t{64}); }
};
using AlignedBytes = std::unique_ptr<uint8_t[], AlignedDelete>;

}  // namespace

Status validate(const ScaledProductArgs& args) {
  if (!has_vnni()) return Status::kNeedsVnni;
  if (args.tokens < 0 || args.out_features < 0 || args.in_features < 0) return Status::kNegativeSize;
  const bool empty = args.tokens == 0 || args.out_features == 0;
  if (empty) return Status::kOk;
  if (!args.token_scale || !args.weight_scale || !args.y) return Status::kNullPointer;
  if (args.in_features > 0 && (!args.values || !args.weight)) return Status::kNullPointer;
  return Status::kOk;
}

int64_t scaled_product_tasks(const ScaledProductArgs& args) {
  return blocks_of(args.out_features, kPanelFeatures) * blocks_of(args.tokens, kTaskTokens);
}

void scaled_product([[maybe_unused]] const ScaledProductArgs& args, [[maybe_unused]] int64_t task_begin,
                    [[maybe_unused]] int64_t task_end) {
#if defined(AMBER_X86)
  const KeepSubnormals keep_subnormals;
  const AlignedBytes workspace(new (std::align_val_t{64}) uint8_t[workspace_bytes(args)]);
  std::vector<uint32_t> token_sums(args.tokens);
  sum_tokens_vnni(args, token_sums.data());

  // Tasks of one panel lie side by side.
  const int64_t blocks = blocks_of(args.tokens, kTaskTokens);
  for (int64_t task = task_begin; task < task_end;) {
    const int64_t panel = task / blocks;
    const int64_t end = std::min(task_end, (panel + 1) * blocks);
    scaled_panel_vnni(args, token_sums.data(), panel, (task - panel * blocks) * kTaskTokens,
                      std::min(args.tokens, (end - panel * blocks) * kTaskTokens), workspace.get());
    task = end;
  }
#endif
}

}  // namespace amber::cpu
