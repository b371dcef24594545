"""Unstructured pruning of activations: what could be kept without N:M. It has no sparse kernels, so quality alone.

TEAL (arXiv 2408.14690) zeroes entries whose magnitude is below a threshold of the projection, fixed by the histogram of
calibration inputs; sparsities are the same everywhere, or chosen greedily within each decoder layer (algorithm 1). TEAL
thresholds all seven projections, in decode and in later prefill; here it is q, gate and down in all of prefill, as the
methods that it stands beside. ActTail (arXiv 2603.12272) keeps the largest entries of each token; its allocation is
approximated in `amber_ext.planning.allocators.acttail`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from amber_ext.layers.input_hooks import InputFunction
from amber_ext.layers.sites import LinearSite
from amber_ext.methods.calibration import see_inputs
from amber_ext.ops.pattern import Pattern
from amber_ext.planning.allocators.acttail import acttail_sparsities
from amber_ext.planning.allocators.block_errors import BlockErrors, blocks_of
from amber_ext.planning.allocators.teal import Move, raise_one_at_a_time

# By how much of a block's multiply-accumulates TEAL's greedy rule raises one projection.
STEP = 0.05
# The greedy rule runs each block hundreds of times: so many tokens have to do.
GREEDY_TOKENS = 512

_BINS = 1 << 15


class MagnitudeHistogram:
    """Counts of |x| by the upper half of its fp32 bits: exact for bf16, within 1/128 of |x| for other dtypes."""

    def __init__(self) -> None:
        self._counts = torch.zeros(_BINS, dtype=torch.int64)

    def add(self, x: torch.Tensor) -> None:
        """Counts the entries of x, of any shape, finite."""
        upper = x.detach().float().abs().flatten().view(torch.int32) >> 16
        self._counts += torch.bincount(upper, minlength=_BINS).cpu()

    def threshold(self, share: float) -> float:
        """The least t, to the histogram's precision, with at least this share of ``|x| < t``; 0 for 0."""
        if share <= 0:
            return 0.0
        wanted = share * int(self._counts.sum()) * (1 - 1e-12)
        bin = int((self._counts.cumsum(0) < wanted).sum())
        # Its upper end, which bf16 holds: a number between would be rounded where x is bf16.
        return float(torch.tensor((bin + 1) << 16, dtype=torch.int32).view(torch.float32))


def input_histograms(
    model: torch.nn.Module, sites: Sequence[LinearSite], batches: Sequence[torch.Tensor]
) -> dict[str, MagnitudeHistogram]:
    """Site's name to the magnitudes of its input in the dense model."""
    histograms = {site.name: MagnitudeHistogram() for site in sites}
    of_module = {site.module_name: histograms[site.name] for site in sites}
    see_inputs(model, of_module, batches, lambda name, x: of_module[name].add(x))
    return histograms


def thresholded(threshold: float) -> InputFunction:
    """A function of x that zeroes what is smaller than ``threshold``; NaN stays."""
    return lambda x: x.masked_fill(x.abs() < threshold, 0.0)


def largest_of_token(share: float) -> InputFunction:
    """A function of x ``[..., K]`` that zeroes this share of each token's entries, the smallest, rounded to whole ones."""

    def function(x: torch.Tensor) -> torch.Tensor:
        kept = x.shape[-1] - round(share * x.shape[-1])
        places = x.abs().topk(kept, dim=-1).indices
        return torch.zeros_like(x).scatter(-1, places, x.gather(-1, places))

    return function


def teal_uniform(
    model: torch.nn.Module, sites: Sequence[LinearSite], batches: Sequence[torch.Tensor], pattern: Pattern
) -> dict[str, InputFunction]:
    """Thresholds that drop the pattern's share of each projection's calibration inputs."""
    histograms = input_histograms(model, sites, batches)
    return {s.module_name: thresholded(histograms[s.name].threshold(1 - pattern.density)) for s in sites}


def teal_greedy(
    model: torch.nn.Module, sites: Sequence[LinearSite], batches: Sequence[torch.Tensor], pattern: Pattern
) -> dict[str, InputFunction]:
    """Thresholds for the sparsities of `greedy_sparsities`."""
    histograms = input_histograms(model, sites, batches)
    shares = greedy_sparsities(model, sites, batches, histograms, 1 - pattern.density)
    return {s.module_name: thresholded(histograms[s.name].threshold(shares[s.name])) for s in sites}


def greedy_sparsities(
    model: torch.nn.Module,
    sites: Sequence[LinearSite],
    batches: Sequence[torch.Tensor],
    histograms: dict[str, MagnitudeHistogram],
    target: float,
) -> dict[str, float]:
    """Site's name to its sparsity by TEAL's rule; in each block their mean, weighed by size, is ``target``."""
    blocks = blocks_of(sites)
    errors = BlockErrors(model, blocks, [batches[0][:1, :GREEDY_TOKENS]])
    found: dict[str, float] = {}
    for block, inside in blocks.items():
        size = sum(site.macs for site in inside)
        shares = {site.name: site.macs / size for site in inside}

        def moves_of(state, left, shares=shares):
            step = min(STEP, left)
            raised = {name: state[name] + step / share for name, share in shares.items()}
            return [Move(name, value, step) for name, value in raised.items() if value <= 1 + 1e-9]

        def error_of(state, block=block, inside=inside):
            return errors.error(block, {
                site.module_name: thresholded(histograms[site.name].threshold(state[site.name]))
                for site in inside if state[site.name] > 0
            })  # fmt: skip

        found |= raise_one_at_a_time(dict.fromkeys(shares, 0.0), moves_of, error_of, target)
    return found


def acttail(
    model: torch.nn.Module, sites: Sequence[LinearSite], batches: Sequence[torch.Tensor], pattern: Pattern
) -> dict[str, InputFunction]:
    """The largest entries of each token, as many as ActTail's allocation (approximated) leaves the projection."""
    shares = acttail_sparsities(model, sites, 1 - pattern.density)
    return {site.module_name: largest_of_token(shares[site.name]) for site in sites}
