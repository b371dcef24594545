"""The method in plain PyTorch: the specification that every kernel is tested against.

Notation: ``x [..., K]`` input of a linear layer, one token per row; ``scale [K]`` the fp32 channel
scale c (None means 1). Source: arXiv 2508.02128, section 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from amber_ext.pattern import Pattern
from amber_ext.windows import extra_windows, fitting_sets

# The bits of the fp32 quiet NaN: above those of every number and of Inf.
NAN_KEY = 0x7FC00000


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
    groups = key.unflatten(-1, (x.shape[-1] // pattern.m, pattern.m))
    position = torch.arange(pattern.m, device=x.device)
    unique_key = groups * pattern.m + (pattern.m - 1 - position)
    if pattern.windowed:
        return _first_that_fit(unique_key, pattern).flatten(-2)
    kept = unique_key.topk(pattern.n, dim=-1).indices
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, kept, True).flatten(-2)


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

    1 where either variance is 0 (a factor of 0 would erase the token) or the ratio is not finite.
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
