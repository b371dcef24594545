"""The ways to run a linear layer that are timed beside one another."""

from __future__ import annotations

import torch
from timing import Variant

import amber_ext

DTYPE = torch.bfloat16
# All patterns that run on 2:4 hardware.
PATTERNS = ("2:4", "10:16w", "12:16w", "4:8", "8:16")


class Inputs:
    """Copies of one layer's input and weight, more than L2 holds, and its channel scale.

    Args:
        tokens, n, k: X is ``[T, K]``, W ``[N, K]``.
    """

    def __init__(self, tokens: int, n: int, k: int, copies: int, device: str = "cuda") -> None:
        self.xs = [torch.randn(tokens, k, device=device, dtype=DTYPE) for _ in range(copies)]
        self.weights = [torch.randn(n, k, device=device, dtype=DTYPE) / k**0.5 for _ in range(copies)]
        self.scale = torch.rand(k, device=device) + 0.5


def linear_layers(inputs: Inputs) -> dict[str, Variant]:
    """Dense, 2:4, dense 8-bit and 2:4 8-bit layers, each with all that it does to X; torch's 8-bit products alone."""
    xs, weights, scale = inputs.xs, inputs.weights, inputs.scale

    def ours(backend: str) -> Variant:
        return lambda i: amber_ext.linear(xs[i], weights[i], pattern="2:4", scale=scale, backend=backend)

    variants = {
        "cublas": lambda i: torch.nn.functional.linear(xs[i], weights[i]),
        "amber_linear": ours("cutlass"),
        "amber_masked_dense": ours("cuda"),
    }
    for dtype in ("int8", "e4m3"):
        variants |= _8bit(inputs, dtype)
    return variants | cusparselt(inputs)


def _8bit(inputs: Inputs, dtype: str) -> dict[str, Variant]:
    xs, scale = inputs.xs, inputs.scale
    try:
        quantized = [amber_ext.quantize_weight(weight, dtype) for weight in inputs.weights]
        values = [amber_ext.quantize_activations(x, dtype=dtype) for x in xs]
    except RuntimeError as error:
        return {f"{dtype}_product": _that_fails(error)}

    def product(i: int) -> torch.Tensor:
        (x, token_scale), (weight, weight_scale) = values[i], quantized[i]
        if dtype == "int8":
            return torch._int_mm(x, weight.t())
        scales = {"scale_a": token_scale[:, None], "scale_b": weight_scale[None, :]}
        return torch._scaled_mm(x, weight.t(), **scales, out_dtype=DTYPE)

    pruned = {"pattern": "2:4", "scale": scale, "backend": "cutlass"}
    return {
        f"{dtype}_product": product,
        f"{dtype}_dense_linear": lambda i: amber_ext.linear_w8a8(xs[i], *quantized[i]),
        f"{dtype}_amber_linear": lambda i: amber_ext.linear_w8a8(xs[i], *quantized[i], **pruned),
    }


def cusparselt(inputs: Inputs) -> dict[str, Variant]:
    """cuSPARSELt's product with the algorithm that its search finds, and its compression.

    Its sparse operand is the first one: the activations, as with ours.
    """
    try:
        pruned = [amber_ext.nm_prune(x, "2:4", inputs.scale) for x in inputs.xs]
        compressed = [torch._cslt_compress(x) for x in pruned]
        dense = [weight.t() for weight in inputs.weights]
        search = torch._C._cusparselt.mm_search(compressed[0], dense[0], None, None, None, False)
        algorithm, split_k, split_k_mode = search[:3]
    except (RuntimeError, AttributeError) as error:
        return {"cusparselt_gemm": _that_fails(error)}
    how = {"alg_id": algorithm, "split_k": split_k, "split_k_mode": split_k_mode}
    return {
        "cusparselt_compress": lambda i: torch._cslt_compress(pruned[i]),
        "cusparselt_gemm": lambda i: torch._cslt_sparse_mm(compressed[i], dense[i], **how),
    }


def patterns(inputs: Inputs) -> dict[str, Variant]:
    """Every pattern in 16 and 8 bits, beside dense layers of both."""
    xs, weights = inputs.xs, inputs.weights
    quantized = [amber_ext.quantize_weight(weight) for weight in weights]
    variants = {
        "cublas": lambda i: torch.nn.functional.linear(xs[i], weights[i]),
        "int8_dense_linear": lambda i: amber_ext.linear_w8a8(xs[i], *quantized[i]),
    }
    for pattern in PATTERNS:
        how = {"pattern": pattern, "scale": inputs.scale, "backend": "cutlass"}
        wide = [amber_ext.widen_weight(weight, pattern) for weight in weights]
        wide8 = [(amber_ext.widen_weight(values, pattern), scales) for values, scales in quantized]
        variants[pattern] = lambda i, w=wide, how=how: amber_ext.linear(xs[i], w[i], **how)
        variants[f"int8 {pattern}"] = lambda i, w=wide8, how=how: amber_ext.linear_w8a8(xs[i], *w[i], **how)
    return variants


def _that_fails(error: Exception) -> Variant:
    def fail(i: int) -> object:
        raise error

    return fail
