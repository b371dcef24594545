"""Sparsities from the tails of the weights' spectra, after ActTail (arXiv 2603.12272). An approximation.

ActTail gives each projection a sparsity by the power-law exponent of its weight's eigenvalue spectrum. Its exact formula was
not at hand; this is the abstract's description, with the linear map of AlphaPruning (arXiv 2410.10912): a heavier tail (a
smaller exponent) is kept denser. ActTail prunes by top-k of a token, and so does `amber_ext.evaluation.comparators`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from amber_ext.layers.sites import LinearSite
from amber_ext.ops.pattern import Pattern
from amber_ext.planning.allocators.levels import CostOf, levels_of, pruned_only

# Before they are rescaled to the target, sparsities lie in [1 − SPREAD, 1 + SPREAD] times it.
SPREAD = 0.3


def tail_exponent(weight: torch.Tensor) -> float:
    """α of the density ``λ^−α`` of the upper half of the eigenvalues of ``WᵀW``, by Hill's estimator.

    ``α = 1 + k / Σ_{i ≤ k} ln(λ_{n−i+1} / λ_{n−k})`` over the n eigenvalues > 0 in ascending order, ``k = n // 2``.

    Args:
        weight: ``[N, K]``, finite.

    Raises:
        ValueError: fewer than 2 eigenvalues differ from 0.
    """
    weight = weight.detach().double()
    gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    values = torch.linalg.eigvalsh(gram)
    # What is left of an eigenvalue 0 after rounding.
    values = values[values > values[-1] * len(values) * torch.finfo(torch.float64).eps]
    count = len(values) // 2
    if count == 0:
        raise ValueError(f"weight: its rank is {len(values)}; at least 2 is needed for a spectrum's tail")
    logarithms = (values[-count:] / values[-count - 1]).log().sum()
    return 1 + count / float(logarithms.clamp_min(torch.finfo(torch.float64).tiny))


def relative_sparsities(exponents: Mapping[str, float], spread: float = SPREAD) -> dict[str, float]:
    """Exponents mapped linearly onto ``[1 − spread, 1 + spread]``; 1 for all where they are equal."""
    least, largest = min(exponents.values()), max(exponents.values())
    width = largest - least
    return {
        name: 1.0 if width == 0 else 1 - spread + 2 * spread * (value - least) / width
        for name, value in exponents.items()
    }


def rescaled(relative: Mapping[str, float], sizes: Mapping[str, float], target: float) -> dict[str, float]:
    """Sparsities in proportion to ``relative``, 1 at the most, whose mean weighed by ``sizes`` is ``target``.

    Args:
        target: in [0, 1].
    """
    found: dict[str, float] = {}
    free = dict(relative)
    left = target * sum(sizes.values())
    while free:
        factor = left / sum(value * sizes[name] for name, value in free.items())
        full = [name for name, value in free.items() if factor * value > 1]
        if not full:
            return {name: found.get(name, factor * relative[name]) for name in relative}
        for name in full:
            found[name] = 1.0
            left -= sizes[name]
            del free[name]
    return found


def acttail_sparsities(
    model: torch.nn.Module, sites: Sequence[LinearSite], target: float
) -> dict[str, float]:
    """Site's name to its sparsity; their mean, weighed by multiply-accumulates, is ``target``."""
    exponents = {site.name: tail_exponent(model.get_submodule(site.module_name).weight) for site in sites}
    return rescaled(relative_sparsities(exponents), {site.name: site.macs for site in sites}, target)


def acttail_patterns(
    exponents: Mapping[str, float],
    sites: Sequence[LinearSite],
    patterns: Sequence[Pattern],
    cost_of: CostOf,
    wanted: float,
) -> dict[str, Pattern]:
    """Patterns whose sparsities are nearest to those wanted, all raised in proportion until the cost is met.

    Args:
        exponents: site's name to `tail_exponent`.
        wanted: share of the model's cost to save; the cheapest patterns together save as much.

    Returns:
        site's name to its pattern, without those that stay dense.
    """
    relative = relative_sparsities(exponents)
    steps = []
    for site in sites:
        levels = levels_of(site, patterns, cost_of)
        for before, after in zip(levels, levels[1:], strict=False):
            halfway = 1 - (before.pattern.density + after.pattern.density) / 2
            steps.append((halfway / relative[site.name], site.name, after.pattern, before.cost - after.cost))
    chosen: dict[str, Pattern] = {}
    saved = 0.0
    for _, name, pattern, saves in sorted(steps, key=lambda step: step[0]):
        if saved >= wanted:
            break
        chosen[name] = pattern
        saved += saves
    return pruned_only(chosen)
