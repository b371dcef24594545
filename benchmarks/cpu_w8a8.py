"""W8A8 layers on a CPU against bf16 `F.linear`, measured in the same run. Writes results/cpu_w8a8.json.

At T = 1 and 8, as in decode, and T = 128 and 2048, as in prefill; on the shapes of Llama-8B's gate and down. What is timed is
all of a layer: prune where it prunes, quantise, product, scales. Its weight comes from memory, as in a model with other layers.
"""

from __future__ import annotations

from collections.abc import Callable

import environment
import torch
import torch.nn.functional as F
from cpu import interleaved_medians

from amber_ext import linear_w8a8, quantize_activations, quantize_weight
from amber_ext.ops.dense_products import describe_int8_product, int8_product

SHAPES = {"gate": (14336, 4096), "down": (4096, 14336)}
TOKENS = (1, 8, 128, 2048)
PATTERN = "2:4"
LARGER_THAN_CACHES = torch.zeros(1 << 28, dtype=torch.int8)


def variants(
    x: torch.Tensor,
    dense: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    scale: torch.Tensor,
) -> dict[str, Callable[[], torch.Tensor]]:
    """What is compared, on one input; ``weight`` and ``weight_scale`` are ``dense`` in int8."""

    def with_torchs_product() -> torch.Tensor:
        values, token_scale = quantize_activations(x)
        product = int8_product(values, weight)
        return torch.ops.amber.dequantize(product, token_scale, weight_scale, None, "bfloat16")

    return {
        "dense": lambda: F.linear(x, dense),
        "w8a8": lambda: linear_w8a8(x, weight, weight_scale),
        "pruned_w8a8": lambda: linear_w8a8(x, weight, weight_scale, pattern=PATTERN, scale=scale),
        "torchs_w8a8": with_torchs_product,  # what was there before, and is where there is AMX
    }


def main() -> None:
    torch.manual_seed(0)
    rows = []
    for name, (out_features, in_features) in SHAPES.items():
        weight = torch.randn(out_features, in_features, dtype=torch.bfloat16) / in_features**0.5
        quantized, scale = quantize_weight(weight), torch.rand(in_features) + 0.5
        for tokens in TOKENS:
            x = torch.randn(tokens, in_features, dtype=torch.bfloat16)
            functions = variants(x, weight, *quantized, scale)
            assert torch.equal(functions["w8a8"](), functions["torchs_w8a8"]())
            repeats = 9 if tokens > 100 else 51
            medians = interleaved_medians(functions, repeats, before=lambda: LARGER_THAN_CACHES.add_(1))
            row = {"shape": name, "out_features": out_features, "in_features": in_features, "tokens": tokens}
            row |= {f"{key}_ms": seconds * 1e3 for key, seconds in medians.items()}
            rows.append(row)
            ratios = ", ".join(f"{key} {medians[key] / medians['dense']:.2f}" for key in list(functions)[1:])
            print(f"{name} T = {tokens}: bf16 {row['dense_ms']:.2f} ms; times that: {ratios}", flush=True)
    product = describe_int8_product(torch.device("cpu"))
    path = environment.write("cpu_w8a8", {"product": product, "pattern": PATTERN, "rows": rows})
    print(f"wrote {path.relative_to(environment.ROOT)}")


if __name__ == "__main__":
    main()
