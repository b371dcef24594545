"""The comparators by the names that `amber-ext eval` knows them by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from amber_ext.evaluation.comparators import mitigation, unstructured
from amber_ext.layers.input_hooks import InputFunction
from amber_ext.layers.sites import LinearSite
from amber_ext.ops.pattern import Pattern

# The dense model, the projections to prune, token ids [B, T] and the pattern to a function for each projection's input.
# What prunes without a pattern takes the pattern's sparsity.
InputFunctions = Callable[
    [torch.nn.Module, Sequence[LinearSite], Sequence[torch.Tensor], Pattern], dict[str, InputFunction]
]


@dataclass(frozen=True)
class Comparator:
    """A method that changes the inputs of q, gate and down in prefill.

    Attributes:
        description: for tables and help texts.
        functions: makes the functions, by the projections' module names.
    """

    description: str
    functions: InputFunctions


COMPARATORS: dict[str, Comparator] = {
    "teal_uniform": Comparator(
        "for contrast: entries of q, gate and down below a threshold, the pattern's share of each (TEAL)",
        unstructured.teal_uniform,
    ),
    "teal": Comparator(
        "the same, shares by TEAL's greedy allocation within each block", unstructured.teal_greedy
    ),
    "acttail": Comparator(
        "for contrast: the smallest entries of each token, shares by the tails of the weights' spectra (after ActTail)",
        unstructured.acttail,
    ),
    "clact": Comparator(
        "N:M by |x| times the norm of its channel over the call's tokens (CLACT)", mitigation.clact
    ),
    "shift": Comparator(
        "|x| after each token's median is taken off, which is added again (shift of arXiv 2509.22166)",
        mitigation.shift,
    ),
}
