"""MaskPro (arXiv 2506.12876): N:M masks of weights by policy gradient; the weights stay as they are.

Each group of M weights has M logits. A step draws N of them one after the other, without replacement, by softmax; its loss
less that of the initial mask on the same tokens, less a moving average of that, weighs the gradient of the draw's logarithmic
probability. The authors' public settings are kept where they are known (logits 10 of the weights that Wanda keeps, rate 50);
their runs take 10,000 steps of 32 sequences, this one `STEPS` of 256 tokens: it says what the method does with that little.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from amber_ext.evaluation.comparators.weight_groups import grouped, loss_of, pieces_of
from amber_ext.evaluation.weight_pruning import input_norms
from amber_ext.ops.functional import nm_mask
from amber_ext.ops.pattern import Pattern

STEPS = 48
LOGIT = 10.0
RATE = 50.0
# Of the moving average, the share that stays. The paper's value was not at hand.
KEPT = 0.9


def draw(logits: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
    """n of each row's M places, int64 ``[G, n]`` in the order drawn, without replacement, by softmax of logits ``[G, M]``.

    The n largest of ``logits + Gumbel noise`` have this distribution.
    """
    uniform = torch.rand(logits.shape, generator=generator).clamp_min(torch.finfo(torch.float32).tiny)
    return (logits - (-uniform.log()).log()).topk(n, dim=-1).indices


def log_probability_gradient(logits: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """The gradient of the logarithm of a draw's probability, ``[G, M]``: for each drawn place, 1 there less the softmax of
    what was left."""
    left, gradient = logits.clone(), torch.zeros_like(logits)
    for place in drawn.split(1, dim=-1):
        gradient -= left.softmax(-1)
        gradient.scatter_add_(-1, place, torch.ones_like(place, dtype=logits.dtype))
        left.scatter_(-1, place, -torch.inf)
    return gradient


class Baseline:
    """The moving average of loss residuals."""

    def __init__(self) -> None:
        self.average = 0.0

    def advantage(self, residual: float) -> float:
        """``residual`` less the average so far, which then takes it in."""
        advantage = residual - self.average
        self.average = KEPT * self.average + (1 - KEPT) * residual
        return advantage


def maskpro_(
    model: torch.nn.Module,
    names: Sequence[str],
    pattern: Pattern,
    batches: Iterable[torch.Tensor],
    *,
    steps: int = STEPS,
    rate: float = RATE,
    seed: int = 0,
) -> None:
    """Zeroes weights of the ``nn.Linear`` layers with these names, in place: all but the N of M with the largest logits.

    Args:
        model: a transformers causal LM, dense.
        batches: token ids ``[B, T]`` int64, for Wanda's norms and for the loss.

    Raises:
        ValueError: no batches, or no sequence of 2 tokens.
    """
    pieces = pieces_of(batches)
    norms = input_norms(model, names, batches)
    generator = torch.Generator().manual_seed(seed)
    weights = {name: model.get_submodule(name).weight.detach().clone() for name in names}
    initial = {name: nm_mask(weight, pattern, norms[name]) for name, weight in weights.items()}
    logits = {name: grouped(mask, pattern.m).float() * LOGIT for name, mask in initial.items()}
    baseline = Baseline()

    def put(name: str, mask: torch.Tensor) -> None:
        model.get_submodule(name).weight.copy_(weights[name] * mask)

    with torch.no_grad():
        first = []
        for name in names:
            put(name, initial[name])
        for piece in pieces[:steps]:
            first.append(float(loss_of(model, piece)))
        for step in range(steps):
            drawn = {name: draw(logits[name], pattern.n, generator) for name in names}
            for name, places in drawn.items():
                put(name, _mask(logits[name], places).view(weights[name].shape))
            place = step % len(pieces)
            advantage = baseline.advantage(float(loss_of(model, pieces[place])) - first[place])
            for name, places in drawn.items():
                logits[name] -= rate * advantage * log_probability_gradient(logits[name], places)
        for name in names:
            put(name, nm_mask(logits[name], Pattern(f"{pattern.n}:{pattern.m}")).view(weights[name].shape))


def _mask(logits: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, places, True)
