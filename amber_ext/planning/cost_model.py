"""What a projection's product costs at a pattern, relative to the dense one, in prefill."""

from __future__ import annotations

import torch

from amber_ext.layers.sites import LinearSite
from amber_ext.ops.choice.products import decide, plan_of, problem_of
from amber_ext.ops.pattern import UNPRUNED, Pattern, extra_windows, widened_features

# Tokens of the prefill that costs are for.
TOKENS = 8192


def bound(pattern: Pattern) -> float:
    """The least relative cost on 2:4 hardware: K' / K at twice the speed; 1 where the pattern does not run there.

    Windows of four columns, each two columns after the last, hold any ``M−2:M`` pattern of even M: ``M/2 − 1`` windows for
    each M columns, so ``K' / K = 2 − 4/M`` (SlideSparse, arXiv 2603.05232, for weights; 6:8 costs 0.75). No kernel here runs
    them, other than 2:4: beside the windowed patterns they are for comparison.
    """
    extra = extra_windows(pattern)
    if extra is not None:
        return (1 + extra / 4) / 2
    slides = not pattern.windowed and pattern.m - pattern.n == 2 and pattern.m % 2 == 0
    return 1 - 2 / pattern.m if slides else 1.0


def relative_cost(site: LinearSite, pattern: Pattern, device: torch.device, dtype: torch.dtype) -> float:
    """On a GPU the time of the fastest kernel over the dense one's, measured or predicted; elsewhere `bound`.

    Args:
        dtype: of inputs and weights.
    """
    if device.type != "cuda" or pattern == UNPRUNED:
        return bound(pattern)
    columns = widened_features(site.in_features, pattern) or site.in_features
    shape = (site.out_features, columns, site.in_features, True)
    key = (device, dtype, dtype, *shape, str(pattern), "none", "auto", False)
    decision = decide(problem_of(*key), plan_of(*key), TOKENS)
    return bound(pattern) if decision.speedup is None else 1 / decision.speedup
