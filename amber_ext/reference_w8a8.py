"""8-bit linear layers on pruned activations in plain PyTorch: the specification of the kernels.

Notation as in `amber_ext.reference`; ``smooth [K]`` are fp32 factors f that the activations are
multiplied with on the fly (None means 1). Source: arXiv 2508.02128, section 3 (Outstanding-sparse).
"""

from __future__ import annotations

import torch

from amber_ext import reference
from amber_ext.pattern import Pattern

QUANTIZED_DTYPES = {"int8": torch.int8, "e4m3": torch.float8_e4m3fn}
LARGEST = {"int8": 127.0, "e4m3": 448.0}

# Rows with a smaller absolute maximum (zero rows among them) are quantised as if it were this one:
# then the scale is a normal fp32 number and its reciprocal is finite.
SMALLEST_ABSMAX = 2.0**-110


def quantize_rows(rows: torch.Tensor, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric, one scale a row: ``scale = absmax / largest``, ``q = round(v * (largest / absmax))``.

    Args:
        rows: fp32 ``[..., K]``.
        dtype: ``"int8"`` (rounds to nearest even) or ``"e4m3"``.

    Returns:
        values ``[..., K]`` and scales fp32 ``[..., 1]``. A row with NaN or Inf has values 0 and scale
        NaN, so that all it produces is NaN.
    """
    absmax = rows.abs().amax(-1, keepdim=True)
    clamped = absmax.clamp_min(SMALLEST_ABSMAX)
    # A tensor: torch divides by a Python number by multiplying with its reciprocal, which rounds twice.
    largest = torch.full_like(clamped, LARGEST[dtype])
    finite = absmax.isfinite()
    units = torch.where(finite, rows * (largest / clamped), 0.0)
    values = (units.round() if dtype == "int8" else units).to(QUANTIZED_DTYPES[dtype])
    return values, torch.where(finite, clamped / largest, torch.nan)


def quantize_activations(
    x: torch.Tensor,
    pattern: Pattern,
    smooth: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    rescale: str = "none",
    dtype: str = "int8",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prunes ``x [..., K]``, multiplies it by ``smooth`` and quantises it by token.

    Returns values ``[..., K]`` and token scales fp32 ``[...]``; the absolute maximum is that of the kept
    values, and the factor of ``rescale="variance"`` rides in the token scale.
    """
    v = x.float() if smooth is None else x.float() * smooth
    kept = v
    if pattern.n < pattern.m:
        kept = torch.where(reference.nm_mask(x, pattern, scale), v, 0.0)
    values, token_scale = quantize_rows(kept, dtype)
    if rescale == "variance":
        token_scale = token_scale * reference.variance_factor(v, kept)
    return values, token_scale.squeeze(-1)


def linear_w8a8(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    pattern: Pattern,
    smooth: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    rescale: str = "none",
) -> torch.Tensor:
    """``Y = Q(x) Wᵀ · token_scale · weight_scale + b``: weight 8-bit ``[N, K]``, Y ``[..., N]`` of x's dtype."""
    dtype = "int8" if weight.dtype == torch.int8 else "e4m3"
    values, token_scale = quantize_activations(x, pattern, smooth, scale, rescale, dtype)
    # Exact: every partial sum of 8-bit products fits fp64's 53 bits.
    product = values.double() @ weight.double().t()
    y = product.float() * token_scale[..., None] * weight_scale
    if bias is not None:
        y = y + bias.float()
    return y.to(x.dtype)
