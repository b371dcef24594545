"""The greedy allocation of TEAL (arXiv 2408.14690, algorithm 1), block by block.

Within a decoder layer one projection at a time is raised by a step, the one with which the error of the layer's output grows
least, until the layer saves what is wanted of it; every layer saves the same share. TEAL raises sparsities by a step that
saves the same in every projection. N:M patterns save different amounts, so here the growth is divided by what the step saves,
which for equal steps is TEAL's rule. TEAL's activations are thresholded; here any function of the input will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from amber_ext.config import AmberConfig
from amber_ext.layers.input_hooks import InputFunction
from amber_ext.layers.sites import LinearSite, score_for
from amber_ext.ops.functional import nm_prune
from amber_ext.ops.pattern import UNPRUNED, Pattern
from amber_ext.ops.scores import selection_scale
from amber_ext.planning.allocators.block_errors import BlockErrors, blocks_of
from amber_ext.planning.allocators.levels import CostOf, levels_of, pruned_only
from amber_ext.progress import progress_bar

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Move:
    """One projection takes another choice, which saves so much more."""

    name: str
    choice: object
    saved: float


def raise_one_at_a_time(
    start: Mapping[str, Choice],
    moves_of: Callable[[dict[str, Choice], float], list[Move]],
    error_of: Callable[[dict[str, Choice]], float],
    wanted: float,
) -> dict[str, Choice]:
    """The choices of a block once it saves ``wanted``.

    Args:
        start: each projection's name to its first choice.
        moves_of: the choices so far, and what they must save yet, to the moves that are allowed.
        error_of: choices to the squared error of the block's output.

    Raises:
        ValueError: there are no more moves before that.
    """
    state, error, saved = dict(start), 0.0, 0.0
    while wanted - saved > 1e-9 * wanted:
        moves = moves_of(state, wanted - saved)
        if not moves:
            raise ValueError(f"cost: a block can save {saved:.4g}, less than the {wanted:.4g} wanted of it")
        errors = [error_of({**state, move.name: move.choice}) for move in moves]
        grown, best = min(zip(errors, moves, strict=True), key=lambda pair: (pair[0] - error) / pair[1].saved)
        state[best.name] = best.choice
        error, saved = grown, saved + best.saved
    return state


def teal_patterns(
    model: torch.nn.Module,
    sites: Sequence[LinearSite],
    batches: Iterable[torch.Tensor],
    patterns: Sequence[Pattern],
    config: AmberConfig,
    cost_of: CostOf,
    wanted: float,
    *,
    progress: bool = False,
) -> dict[str, Pattern]:
    """N:M patterns by TEAL's rule.

    Args:
        model: a transformers causal LM, dense.
        sites: projections that are ``nn.Linear``, in numbered layers.
        batches: token ids ``[B, T]`` int64.
        config: score and rescale.
        wanted: share of the model's cost to save; every block saves it in proportion to its size.

    Returns:
        site's name to its pattern, without those that stay dense.

    Raises:
        ValueError: a block cannot save its part.
    """
    blocks = blocks_of(sites)
    errors = BlockErrors(model, blocks, batches)
    sizes = {name: sum(site.macs for site in inside) for name, inside in blocks.items()}
    chosen: dict[str, Pattern] = {}
    for block, inside in progress_bar(list(blocks.items()), "Choosing patterns", progress):
        levels = {site.name: levels_of(site, patterns, cost_of) for site in inside}
        scales = {
            site.name: selection_scale(model.get_submodule(site.module_name).weight, score_for(site, config))
            for site in inside
        }

        def moves_of(state, left, levels=levels):
            found = []
            for name, choices in levels.items():
                place = next(i for i, level in enumerate(choices) if level.pattern == state[name])
                if place + 1 < len(choices):
                    after = choices[place + 1]
                    found.append(Move(name, after.pattern, choices[place].cost - after.cost))
            return found

        def error_of(state, block=block, scales=scales):
            return errors.error(block, {
                name: _pruner(pattern, scales[name], config.rescale)
                for name, pattern in state.items() if pattern != UNPRUNED
            })  # fmt: skip

        share = wanted * sizes[block] / sum(sizes.values())
        chosen |= raise_one_at_a_time(dict.fromkeys(levels, UNPRUNED), moves_of, error_of, share)
    return pruned_only(chosen)


def _pruner(pattern: Pattern, scale: torch.Tensor | None, rescale: str) -> InputFunction:
    return lambda x: nm_prune(x, pattern, scale, rescale)
