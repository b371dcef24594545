"""The method in plain PyTorch: the specification that every kernel is tested against.

Notation: ``x [..., K]`` input of a linear layer, one token per row; ``scale [K]`` the fp32 channel
scale c (None means 1); ``smooth [K]`` fp32 factors f that the activations of an 8-bit layer are multiplied
with on the fly (None means 1). Source: arXiv 2508.02128, section 3 (Amber Pruner, Outstanding-sparse).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from amber_ext.ops.pattern import Pattern, extra_windows, fitting_sets

# The bits of the fp32 quiet NaN: above those of every number and of Inf.
NAN_KEY = 0x7FC00000

# The bits of the smallest normal fp32 number, 2**-126; subnormal numbers are the multiples of 2**-149 below it.
SMALLEST_NORMAL_KEY = 0x00800000

QUANTIZED_DTYPES = {"int8": torch.int8, "e4m3": torch.float8_e4m3fn}
LARGEST = {"int8": 127.0, "e4m3": 448.0}

# Rows with a smaller absolute maximum (zero rows among them) are quantised as if it were this one:
# then the scale is a normal fp32 number and its reciprocal is finite.
SMALLEST_ABSMAX = 2.0**-110


def nm_mask(x: torch.Tensor, pattern: Pattern, scale: torch.Tensor | None = None) -> torch.Tensor:
    """Which entries survive: bool ``[..., K]``.

    The N largest scores ``|x| * c`` of each aligned group of M; for a windowed pattern, channels in the order
    of their scores as long as they fit the windows. Ties: the lower index wins. NaN ranks above everything,
    then Inf.
    """
    score = x.float().abs()
    if scale is not None:
        score = score * scale
    # The bits of a non-negative float are monotone in its value; the position breaks ties.
    key = score.contiguous().view(torch.int32).masked_fill(score.isnan(), NAN_KEY).long()
    if scale is not None and x.device.type == "cpu":
        key = torch.where(key < SMALLEST_NORMAL_KEY, _subnormal_key(x, scale), key)
    groups = key.unflatten(-1, (x.shape[-1] // pattern.m, pattern.m))
    position = torch.arange(pattern.m, device=x.device)
    unique_key = groups * pattern.m + (pattern.m - 1 - position)
    if pattern.windowed:
        return _first_that_fit(unique_key, pattern).flatten(-2)
    kept = unique_key.topk(pattern.n, dim=-1).indices
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, kept, True).flatten(-2)


def _subnormal_key(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The bits of ``|x| * c``, for threads that flush subnormal numbers to 0 (`torch.set_flush_denormal`).

    In fp64, where all of them and their products are normal.
    """

    def exact(values: torch.Tensor) -> torch.Tensor:
        bits = values.contiguous().view(torch.int32) & 0x7FFFFFFF
        subnormal = bits.double() * 2.0**-149
        return torch.where(bits < SMALLEST_NORMAL_KEY, subnormal, values.double().abs())

    product = exact(x.float()) * exact(scale)
    # In these units rounding to an integer, ties to even, is what rounding to fp32 is among subnormal numbers.
    subnormal = (product.clamp(max=2.0**-126) * 2.0**149).round().long()
    normal = product.float().view(torch.int32).long()
    return torch.where(product < 2.0**-126, subnormal, normal)


def _first_that_fit(key: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """Greedy: bool ``[..., 16]``. Optimal, for the sets that fit form a transversal matroid."""
    fits = fitting_sets(extra_windows(pattern)).to(key.device)
    order = key.argsort(dim=-1, descending=True)
    kept = torch.zeros_like(key[..., 0])
    for column in order.unbind(-1):
        candidate = kept | (1 << column)
        kept = torch.where(fits[candidate], candidate, kept)
    return ((kept[..., None] >> torch.arange(pattern.m, device=key.device)) & 1).bool()


def variance_factor(x: torch.Tensor, pruned: torch.Tensor) -> torch.Tensor:
    """``v_t = sqrt(var(x_t) / var(pruned_t))`` per token, fp32 ``[..., 1]``; population variances.

    1 where either variance is 0 (a factor of 0 would erase the token) or the ratio is not finite. The paper has no such
    factor; the code of arXiv 2509.22166 has it too.
    """

    def variance(rows: torch.Tensor) -> torch.Tensor:
        rows = rows.double()
        return (rows - rows.mean(-1, keepdim=True)).square().mean(-1, keepdim=True)

    ratio = variance(x) / variance(pruned)
    usable = ratio.isfinite() & (ratio > 0)
    return torch.where(usable, ratio, 1.0).sqrt().float()


def nm_prune(
    x: torch.Tensor, pattern: Pattern, scale: torch.Tensor | None = None, rescale: str = "none"
) -> torch.Tensor:
    """x with the dropped entries set to +0, of x's dtype; survivors times `variance_factor` if asked."""
    mask = nm_mask(x, pattern, scale)
    pruned = torch.where(mask, x, torch.zeros_like(x))
    if rescale == "variance":
        pruned = torch.where(mask, (pruned.float() * variance_factor(x, pruned)).to(x.dtype), pruned)
    return pruned


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    pattern: Pattern,
    scale: torch.Tensor | None = None,
    rescale: str = "none",
) -> torch.Tensor:
    """``Y = nm_prune(x) Wᵀ + b``, weight ``[N, K]``, Y ``[..., N]``."""
    return F.linear(nm_prune(x, pattern, scale, rescale), weight, bias)


def quantize_rows(rows: torch.Tensor, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric, one scale a row: ``scale = absmax / largest``, ``q = round(v * (largest / absmax))``.

    Args:
        rows: fp32 ``[..., K]``.
        dtype: ``"int8"`` (rounds to nearest even) or ``"e4m3"``.

    Returns:
        values ``[..., K]`` and scales fp32 ``[..., 1]``. A row with NaN or Inf has values 0 and scale
        NaN, so that all it produces is NaN. Where K is 0, scales are 0.
    """
    if rows.shape[-1] == 0:  # nothing has no maximum
        return rows.to(QUANTIZED_DTYPES[dtype]), rows.new_zeros((*rows.shape[:-1], 1))
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
        kept = torch.where(nm_mask(x, pattern, scale), v, 0.0)
    values, token_scale = quantize_rows(kept, dtype)
    if rescale == "variance":
        token_scale = token_scale * variance_factor(v, kept)
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
