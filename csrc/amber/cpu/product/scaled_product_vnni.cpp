#define AMBER_LANES 16
#include "amber/cpu/product/scaled_product_vnni.h"

#include "amber/cpu/product/tiles_vnni.h"
#include "amber/cpu/quantize/dequantize_simd.h"

// No templates of the standard library here: the linker may keep this file's copy of one for every file, and it would
// need AVX-512 there, too.
namespace amber::cpu {
namespace {

constexpr int64_t round_up(int64_t size, int64_t multiple) { return (size + multiple - 1) / multiple * multiple; }

int64_t packed_bytes(int64_t in_features) { return round_up(in_features, kStep) * kPanelFeatures; }

// packed_tile reads four columns at a time: tokens that end in fewer are copied first.
int64_t padded_features(int64_t in_features) { return round_up(in_features, 4); }

void pad_tokens(const int8_t* values, int tokens, int64_t in_features, int8_t* padded) {
  const int64_t columns = padded_features(in_features);
  for (int t = 0; t < tokens; ++t) {
    for (int64_t k = 0; k < columns; ++k) {
      padded[t * columns + k] = k < in_features ? values[t * in_features + k] : int8_t{0};
    }
  }
}

void finish(const ScaledProductArgs& args, int64_t token, int tokens, int64_t feature, int features,
            const int32_t* sums) {
  const int64_t bytes = element_bytes(args.dtype);
  const auto* bias = static_cast<const uint8_t*>(args.bias);
  for (int t = 0; t < tokens; ++t) {
    auto* y = static_cast<uint8_t*>(args.y) + ((token + t) * args.out_features + feature) * bytes;
    simd_dequantize(sums + t * kPanelFeatures, args.token_scale[token + t], args.weight_scale + feature,
                    bias ? bias + feature * bytes : nullptr, args.dtype, features, y);
  }
}

}  // namespace

int64_t workspace_bytes(const ScaledProductArgs& args) {
  const int64_t columns = padded_features(args.in_features);
  const int64_t tokens = columns > args.in_features ? kTileTokens * columns : 0;
  return args.tokens > kDirectTokens ? packed_bytes(args.in_features) + tokens : 0;
}

void sum_tokens_vnni(const ScaledProductArgs& args, uint32_t* sums) {
  const __m512i ones = _mm512_set1_epi8(1);
  for (int64_t t = 0; t < args.tokens; ++t) {
    __m512i acc = {};
    for (int64_t k = 0; k < args.in_features; k += kStep) {
      const int8_t* values = args.values + t * args.in_features + k;
      acc = _mm512_dpbusd_epi32(acc, ones, _mm512_maskz_loadu_epi8(first(args.in_features - k), values));
    }
    sums[t] = sum_of_lanes(acc);
  }
}

void scaled_panel_vnni(const ScaledProductArgs& args, const uint32_t* token_sums, int64_t panel, int64_t token_begin,
                       int64_t token_end, uint8_t* workspace) {
  const int64_t feature = panel * kPanelFeatures;
  const int features = smaller(kPanelFeatures, args.out_features - feature);
  const int8_t* weight = args.weight + feature * args.weight_stride;
  const bool direct = args.tokens <= kDirectTokens;
  if (!direct) pack_panel(weight, args.weight_stride, features, args.in_features, workspace);

  const int64_t columns = padded_features(args.in_features);
  int32_t sums[kTileTokens * kPanelFeatures];
  const int tile = direct ? kDirectTileTokens : kTileTokens;
  for (int64_t t = token_begin; t < token_end; t += tile) {
    const int tokens = smaller(tile, token_end - t);
    const int8_t* values = args.values + t * args.in_features;
    if (direct) {
      direct_tile_of<kDirectTileTokens>(tokens, features, values, args.in_features, token_sums + t, weight,
                                        args.weight_stride, sums);
    } else if (columns == args.in_features) {
      packed_tile_of<kTileTokens>(tokens, values, columns, token_sums + t, workspace, sums);
    } else {
      auto* padded = reinterpret_cast<int8_t*>(workspace + packed_bytes(args.in_features));
      pad_tokens(values, tokens, args.in_features, padded);
      packed_tile_of<kTileTokens>(tokens, padded, columns, token_sums + t, workspace, sums);
    }
    finish(args, t, tokens, feature, features, sums);
  }
}

}  // namespace amber::cpu
