"""The criterion CLACT and the per-token shift of arXiv 2509.22166, for N:M patterns.

CLACT scores an entry by the loss of cosine similarity that dropping it brings, ``|X_tj| · ‖X_:j‖₂ / ‖X_t:‖₂``. Within a token
the divisor changes no order, so what is left is a channel's norm over the tokens of the call: not fixed as
`amber_ext.ops.scores` are, and not causal, since a prompt's later tokens count for its earlier ones.

The shift prunes ``X − η`` instead of X and adds η again, the token's median as in the authors' code. What is multiplied is
then not sparse: ``(X − η)' Wᵀ`` runs sparse, and ``η · W 1`` is one number for each token and one for each row of W.

Their rescale by variance is ``rescale="variance"`` of this package.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from amber_ext.layers.input_hooks import InputFunction
from amber_ext.layers.sites import LinearSite
from amber_ext.ops.functional import nm_prune
from amber_ext.ops.pattern import Pattern


def clact_pruned(x: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """x ``[..., K]`` with each token pruned to the pattern by CLACT over all its tokens."""
    norms = x.float().flatten(0, -2).norm(dim=0)
    # A channel that is always 0 is 0 whether it is kept or not; scales must be > 0.
    return nm_prune(x, pattern, norms.clamp_min(torch.finfo(torch.float32).tiny))


def shift_pruned(x: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """x ``[..., K]``: each token's median taken off, pruned by magnitude, and the median added again."""
    median = x.median(dim=-1, keepdim=True).values
    return nm_prune(x - median, pattern) + median


def clact(
    model: torch.nn.Module, sites: Sequence[LinearSite], batches: Sequence[torch.Tensor], pattern: Pattern
) -> dict[str, InputFunction]:
    """`clact_pruned` for each site."""
    return {site.module_name: lambda x: clact_pruned(x, pattern) for site in sites}


def shift(
    model: torch.nn.Module, sites: Sequence[LinearSite], batches: Sequence[torch.Tensor], pattern: Pattern
) -> dict[str, InputFunction]:
    """`shift_pruned` for each site."""
    return {site.module_name: lambda x: shift_pruned(x, pattern) for site in sites}
