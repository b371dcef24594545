"""N:M pruning of weights, the baselines that activation pruning is compared with (evaluation only).

``magnitude`` keeps the largest ``|W_ij|``, ``wanda`` (arXiv 2306.11695, section 3) the largest
``|W_ij| · ‖X_:j‖₂``, N of each M consecutive j of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from amber_ext.methods.calibration import see_inputs
from amber_ext.ops.checks import one_of
from amber_ext.ops.functional import nm_prune
from amber_ext.ops.pattern import Pattern

WEIGHT_SCORES = ("magnitude", "wanda")


def prune_weights_(
    model: torch.nn.Module,
    names: Sequence[str],
    pattern: str | Pattern,
    score: str,
    batches: Iterable[torch.Tensor] = (),
) -> None:
    """Zeroes weights of the ``nn.Linear`` layers with these names, in place.

    Args:
        model: dense.
        batches: token ids ``[B, T]`` int64 for ``"wanda"``. The norms are taken in one pass through the dense
            model; Wanda's own code takes them block by block, behind the pruned blocks before.

    Raises:
        ValueError: an unknown score, ``"wanda"`` without batches, or K not a multiple of M.
    """
    one_of("score", score, WEIGHT_SCORES)
    pattern = Pattern(pattern)
    norms = dict.fromkeys(names)
    if score == "wanda":
        norms = input_norms(model, names, batches)
    with torch.no_grad():
        for name in names:
            weight = model.get_submodule(name).weight
            weight.copy_(nm_prune(weight, pattern, norms[name]))


def input_norms(
    model: torch.nn.Module, names: Sequence[str], batches: Iterable[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """``‖X_:j‖₂`` of each layer's input, fp32 ``[K]``, > 0."""
    squares: dict[str, torch.Tensor] = {}

    def add(name: str, x: torch.Tensor) -> None:
        x = x.float().flatten(0, -2)
        squares[name] = squares.get(name, 0.0) + x.square().sum(0, dtype=torch.float64)

    see_inputs(model, names, batches, add)
    # A channel that was always 0 has the least norm there is: nm_prune takes only factors > 0.
    tiny = torch.finfo(torch.float32).tiny
    return {name: total.sqrt().float().clamp_min(tiny) for name, total in squares.items()}
