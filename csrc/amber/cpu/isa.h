// The instruction sets that CPU kernels are compiled for.
#pragma once

namespace amber::cpu {

// Weakest first.
enum class Isa { kPortable, kAvx2, kAvx512 };

// The strongest that this CPU has.
Isa best_isa();

const char* isa_name(Isa isa);

// Whether this CPU has AVX-512's products of bytes, and whether it has matrix instructions for bytes.
bool has_vnni();
bool has_amx();

}  // namespace amber::cpu
