"""The least predicted loss at each cost: one choice a projection, costs and losses add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Step:
    """One move along the frontier: a projection takes a cheaper choice."""

    name: str
    choice: object
    saved: float
    added_loss: float


def frontier(options: Mapping[str, Mapping[Choice, tuple[float, float]]]) -> list[Step]:
    """Steps from the most expensive choices on, in ascending price (added loss for each saved cost).

    After any number of steps no other choice has both a lower loss and a lower cost: these are the points of the lower
    convex hull of all combinations (the multiple-choice knapsack's linear relaxation).

    Args:
        options: name to choice to (cost, loss).
    """
    priced = []
    for name, choices in options.items():
        hull = _hull(choices)
        for (cost, loss, _), (cheaper, higher, choice) in zip(hull, hull[1:], strict=False):
            step = Step(name, choice, cost - cheaper, higher - loss)
            priced.append((step.added_loss / step.saved, step))
    # Prices ascend along a hull, so a stable sort keeps each name's steps in order.
    return [step for _, step in sorted(priced, key=lambda entry: entry[0])]


def _hull(choices: Mapping[Choice, tuple[float, float]]) -> list[tuple[float, float, Choice]]:
    """The lower convex hull of (cost, loss), from the most expensive of the choices with the least loss to the cheapest."""
    points = [(cost, loss, choice) for choice, (cost, loss) in choices.items()]
    hull = [min(points, key=lambda point: (point[1], -point[0]))]
    while True:
        cost, loss, _ = hull[-1]
        cheaper = [point for point in points if point[0] < cost]
        if not cheaper:
            return hull
        hull.append(min(cheaper, key=lambda point: ((point[1] - loss) / (cost - point[0]), point[0])))
