"""LBC (arXiv 2206.06662): the best of the C(M, N) combinations of each group of M weights, by learned scores.

Each combination has a score; weights in any combination that is left are kept, and a combination's score falls with the
gradients of the loss at its weights' masks. Combinations with the lowest scores are removed on a cubic schedule, until one a
group is left. LBC learns weights and scores together in training. Here weights are frozen and the text is a small
calibration set, in `STEPS` steps of 256 tokens, so that the score is a sum of first-order terms: a contrast, not the method
at its best.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations

import torch

from amber_ext.evaluation.comparators.weight_groups import grouped, loss_of, pieces_of
from amber_ext.ops.pattern import Pattern

STEPS = 24
# 4:8 has 70; a score for each of 8:16's 12,870 is more memory than weights take.
MOST_COMBINATIONS = 70


def check_pattern(pattern: Pattern) -> None:
    """Raises ValueError for a pattern of more combinations than can be scored."""
    count = math.comb(pattern.m, pattern.n)
    if count > MOST_COMBINATIONS:
        raise ValueError(
            f"patterns: '{pattern}' has {count:,} combinations a group; weight_lbc allows {MOST_COMBINATIONS}"
        )


def members(pattern: Pattern) -> torch.Tensor:
    """Which places each combination holds, fp32 ``[C(M, N), M]`` of 0 and 1, in lexical order."""
    chosen = list(combinations(range(pattern.m), pattern.n))
    return torch.zeros(len(chosen), pattern.m).scatter(1, torch.tensor(chosen), 1.0)


def left_after(step: int, steps: int, count: int) -> int:
    """How many of ``count`` combinations are left after this step (from 1): ``1 + (count − 1)(1 − step / steps)³``, rounded."""
    return 1 + round((count - 1) * (1 - step / steps) ** 3)


def mask_of(alive: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
    """Bool ``[G, M]``: places that any living combination holds. ``alive`` is bool ``[G, C]``, ``held`` of `members`."""
    return alive.float() @ held > 0


def updated_scores(scores: torch.Tensor, mask_gradient: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
    """Scores ``[G, C]`` less the sum of the loss's gradients at each combination's mask entries (``[G, M]``)."""
    return scores - mask_gradient @ held.T


def best(scores: torch.Tensor, alive: torch.Tensor, count: int) -> torch.Tensor:
    """Bool ``[G, C]``: the ``count`` living combinations with the highest scores; on a tie the lower index."""
    order = scores.masked_fill(~alive, -torch.inf).sort(dim=-1, descending=True, stable=True).indices
    return torch.zeros_like(alive).scatter(-1, order[:, :count], True)


def lbc_(
    model: torch.nn.Module,
    names: Sequence[str],
    pattern: Pattern,
    batches: Iterable[torch.Tensor],
    *,
    steps: int = STEPS,
) -> None:
    """Zeroes weights of the ``nn.Linear`` layers with these names, in place: all but each group's last combination.

    Args:
        model: a transformers causal LM, dense.
        batches: token ids ``[B, T]`` int64.

    Raises:
        ValueError: no batches, no sequence of 2 tokens, or a pattern of too many combinations.
    """
    check_pattern(pattern)
    pieces = pieces_of(batches)
    held = members(pattern)
    layers = {name: model.get_submodule(name) for name in names}
    weights = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    scores = {name: torch.zeros(w.numel() // pattern.m, len(held)) for name, w in weights.items()}
    alive = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        for layer in layers.values():
            layer.weight.requires_grad_(True)
        for step in range(1, steps + 1):
            with torch.enable_grad():
                loss_of(model, pieces[(step - 1) % len(pieces)]).backward()
            for name, layer in layers.items():
                weight = weights[name]
                gradient = grouped(layer.weight.grad.float() * weight.float(), pattern.m)
                layer.weight.grad = None
                scores[name] = updated_scores(scores[name], gradient, held)
                alive[name] = best(scores[name], alive[name], left_after(step, steps, len(held)))
                with torch.no_grad():
                    layer.weight.copy_(weight * mask_of(alive[name], held).view(weight.shape))
    finally:
        for layer in layers.values():
            layer.weight.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
