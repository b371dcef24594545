"""Perplexity of several pruning configurations of one model, and of a quantised one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from amber_ext.config import AmberConfig
from amber_ext.dispatch_w8a8 import UNPRUNED
from amber_ext.evaluate import WINDOW, perplexity
from amber_ext.layers import find_linears
from amber_ext.phase import decode
from amber_ext.quantized_linear import QuantizedLinear
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


def quantized_perplexity(
    model: torch.nn.Module, tokens: torch.Tensor, window: int = WINDOW, *, progress: bool = False
) -> list[Result]:
    """A model that `quantize_` made: dense 8-bit (as decode runs), then with its pruned prefill.

    Args:
        model: a transformers causal LM.
        tokens: ids ``[T]`` int64.
    """
    layers = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    method = f"W8A8 {layers[0].dtype}"
    score = {"window": window, "progress": progress}
    with decode():
        dense = perplexity(model, tokens, description=f"{method} dense", **score)
    results = [Result(method, "dense", 0.0, dense)]
    patterns = sorted({str(layer.pattern) for layer in layers if layer.pattern != UNPRUNED})
    if patterns:
        label = ", ".join(patterns)
        value = perplexity(model, tokens, description=f"{method} {label}", **score)
        results.append(Result(method, label, coverage(model), value))
    return results


def coverage(model: torch.nn.Module) -> float:
    """The share of linear-layer FLOPs that a quantised model runs sparse in prefill, the head left out."""
    head = model.get_output_embeddings()
    linears = [
        m for m in model.modules() if isinstance(m, torch.nn.Linear | QuantizedLinear) and m is not head
    ]
    sparse = [m for m in linears if getattr(m, "pattern", UNPRUNED) != UNPRUNED]
    return sum(m.in_features * m.out_features for m in sparse) / sum(
        m.in_features * m.out_features for m in linears
    )
