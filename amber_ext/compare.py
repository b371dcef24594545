"""Perplexity of several pruning configurations of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from amber_ext.config import AmberConfig
from amber_ext.evaluate import WINDOW, perplexity
from amber_ext.layers import find_linears
from amber_ext.sparsify import check_config, densify_, sparsify_


@dataclass(frozen=True)
class Result:
    """One line of a comparison; the dense model has pattern and method ``"dense"``, coverage 0."""

    method: str
    pattern: str
    coverage: float
    perplexity: float


def compare_perplexity(
    model: torch.nn.Module,
    tokens: torch.Tensor,
    configs: Sequence[AmberConfig],
    window: int = WINDOW,
    *,
    progress: bool = False,
) -> list[Result]:
    """The dense model first, then each configuration; the model is dense again afterwards.

    Args:
        model: a transformers causal LM.
        tokens: ids ``[T]`` int64.
        configs: what to compare.

    Raises:
        ValueError: a configuration does not fit the model; nothing has run then.
    """
    densify_(model)
    sites = find_linears(model)
    for config in configs:
        check_config(sites, config)
    score = {"window": window, "progress": progress}
    results = [Result("dense", "dense", 0.0, perplexity(model, tokens, description="dense", **score))]
    try:
        for config in configs:
            report = sparsify_(model, config)
            label = f"{config.score} {config.pattern}"
            value = perplexity(model, tokens, description=label, **score)
            results.append(Result(config.score, str(config.pattern), report.coverage, value))
    finally:
        densify_(model)
    return results
