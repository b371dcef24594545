"""The patterns of one projection, as steps from dense to the cheapest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from amber_ext.layers.sites import LinearSite
from amber_ext.ops.pattern import UNPRUNED, Pattern

# A site and a pattern to its share of the model's prefill cost.
CostOf = Callable[[LinearSite, Pattern], float]


@dataclass(frozen=True)
class Level:
    """A pattern that a projection may have, and its share of the model's cost."""

    pattern: Pattern
    cost: float


def levels_of(site: LinearSite, patterns: Sequence[Pattern], cost_of: CostOf) -> list[Level]:
    """From dense on, each cheaper and sparser than the one before; of patterns that cost the same, the densest."""
    levels = [Level(UNPRUNED, cost_of(site, UNPRUNED))]
    found = [Level(pattern, cost_of(site, pattern)) for pattern in patterns]
    for level in sorted(found, key=lambda level: (-level.pattern.density, level.cost)):
        if level.cost < levels[-1].cost and level.pattern.density < levels[-1].pattern.density:
            levels.append(level)
    return levels


def pruned_only(assignment: Mapping[str, Pattern]) -> dict[str, Pattern]:
    """Without the projections that stay dense."""
    return {name: pattern for name, pattern in assignment.items() if pattern != UNPRUNED}
