"""Quantisation to 8 bits: weights offline, activations as they come, and the smoothing between the two.

Smoothing (``s_j = max|X_:j|^α / max|W_:j|^(1−α)``): SmoothQuant (arXiv 2211.10438) computes ``(X / s) (W · s)ᵀ``,
Outstanding-sparse (arXiv 2508.02128, section 3) the inverse, ``(X · s) (W / s)ᵀ``. Here both are one
factor f: activations are multiplied by f, weights divided by it.
"""

from __future__ import annotations

import torch

from amber_ext.ops import checks, library, reference
from amber_ext.ops.backends import choose_kernels
from amber_ext.ops.pattern import UNPRUNED, Pattern
from amber_ext.ops.reference import QUANTIZED_DTYPES

DIRECTIONS = ("none", "smoothquant", "outstanding")

# Bounds that keep products with the factor far from fp32's limits.
SMALLEST_FACTOR, LARGEST_FACTOR = 2.0**-40, 2.0**40


def quantize_weight(weight: torch.Tensor, dtype: str = "int8") -> tuple[torch.Tensor, torch.Tensor]:
    """A weight in 8 bits, symmetric, one scale for each output channel.

    Args:
        weight: ``[N, K]``, float32, float16 or bfloat16, finite.
        dtype: ``"int8"`` or ``"e4m3"`` (`torch.float8_e4m3fn`).

    Returns:
        values ``[N, K]`` of that dtype and scales fp32 ``[N]``, with weight ≈ values · scale.

    Raises:
        ValueError: unknown dtype, weight not 2-dimensional, empty or not finite. TypeError: weight's dtype.
    """
    checks.one_of("dtype", dtype, tuple(QUANTIZED_DTYPES))
    checks.check_tensor("weight", weight)
    if weight.dtype not in checks.DTYPES:
        raise TypeError(f"weight: dtype {weight.dtype} is not supported; allowed: {checks.DTYPES}")
    if weight.dim() != 2 or weight.numel() == 0:
        raise ValueError(f"weight: shape {list(weight.shape)} is not allowed; it must be [N, K], not empty")
    values, scales = reference.quantize_rows(weight.detach().float(), dtype)
    if not scales.isfinite().all():
        raise ValueError("weight: it contains NaN or Inf; every entry must be finite")
    return values, scales.squeeze(-1)


def quantize_activations(
    x: torch.Tensor,
    pattern: str | Pattern = UNPRUNED,
    *,
    scale: torch.Tensor | None = None,
    smooth: torch.Tensor | None = None,
    rescale: str = "none",
    dtype: str = "int8",
    backend: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prunes each token to N:M, multiplies it by ``smooth`` and quantises what is left, symmetrically.

    Args:
        x: ``[..., K]``, float32, float16 or bfloat16; K a multiple of M.
        pattern: ``"1:1"`` prunes nothing.
        scale: fp32 ``[K]``, the channel scale of the selection (`nm_mask`), ``smooth`` multiplied in.
        smooth: fp32 ``[K]``, finite and > 0: SmoothQuant factors to apply on the fly. None is 1.
        rescale: ``"variance"`` multiplies the token's scale by ``sqrt(var(token) / var(pruned token))``.
        dtype: ``"int8"`` or ``"e4m3"``.
        backend: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"reference"``.

    Returns:
        values ``[..., K]`` of that dtype and token scales fp32 ``[...]``. The scale is the absolute maximum
        of the kept values over 127 (448 for e4m3). A token with NaN or Inf has values 0 and scale NaN.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = Pattern(pattern)
    checks.check_input(x, pattern)
    checks.check_factors("scale", scale, x)
    checks.check_factors("smooth", smooth, x)
    checks.one_of("rescale", rescale, checks.RESCALES)
    checks.one_of("dtype", dtype, tuple(QUANTIZED_DTYPES))
    library.forbid_tangents(x, scale, smooth)
    if choose_kernels("quantize_activations", x.device, backend).backend == "reference":
        checks.check_factor_values("scale", scale)
        checks.check_factor_values("smooth", smooth)
        function = reference.quantize_activations
        return library.ForbidBackward.apply(function, x, pattern, smooth, scale, rescale, dtype)
    return checks.run(
        torch.ops.amber.quantize_activations, x, smooth, scale, str(pattern), rescale, dtype,
        smooth=smooth, scale=scale,
    )  # fmt: skip


def smoothing_factor(
    input_absmax: torch.Tensor, weight_absmax: torch.Tensor, direction: str, alpha: float
) -> torch.Tensor:
    """f of each channel, fp32 ``[K]``; 1 for channels whose activations or weights are all zero.

    Args:
        input_absmax: ``max|X_:j|`` over calibration tokens, fp32 ``[K]``.
        weight_absmax: ``max|W_:j|``, fp32 ``[K]``.
    """
    s = input_absmax.double() ** alpha / weight_absmax.double() ** (1.0 - alpha)
    factor = 1.0 / s if direction == "smoothquant" else s
    live = (input_absmax > 0) & (weight_absmax > 0)
    return torch.where(live, factor, 1.0).clamp(SMALLEST_FACTOR, LARGEST_FACTOR).float()
