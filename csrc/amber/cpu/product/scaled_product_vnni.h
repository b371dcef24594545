// What scaled_product.cpp asks of the files that are compiled for AVX-512 VNNI.
#pragma once

#include "amber/cpu/product/scaled_product.h"

namespace amber::cpu {

// Rows of W, that is columns of Y, in one panel.
constexpr int kPanelFeatures = 64;

// Up to so many tokens W is read as it lies: rearranging it would take longer than that saves.
constexpr int64_t kDirectTokens = 12;

// For a rearranged panel; 0 up to kDirectTokens tokens.
int64_t workspace_bytes(const ScaledProductArgs& args);

// sums[t] = the sum of the values of token t, modulo 2^32.
void sum_tokens_vnni(const ScaledProductArgs& args, uint32_t* sums);

// Y[token_begin:token_end, panel]; `workspace` is aligned to 64 bytes.
void scaled_panel_vnni(const ScaledProductArgs& args, const uint32_t* token_sums, int64_t panel, int64_t token_begin,
                       int64_t token_end, uint8_t* workspace);

}  // namespace amber::cpu
