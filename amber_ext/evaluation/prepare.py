"""How a model becomes each of the variants that are compared, and is itself again afterwards."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from amber_ext.config import AmberConfig, OutstandingSparseConfig
from amber_ext.evaluation.comparators import COMPARATORS
from amber_ext.evaluation.comparators.lbc import lbc_
from amber_ext.evaluation.comparators.maskpro import maskpro_
from amber_ext.evaluation.variants import (
    CONFIGS,
    DENSE,
    FOLDED,
    NAIVE,
    QUANTIZATION_LOSS,
    SKIPPING,
    UNQUANTIZED,
    WEIGHT_PREFIX,
    Row,
)
from amber_ext.evaluation.weight_pruning import prune_weights_
from amber_ext.layers.input_hooks import changed_inputs
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.layers.sites import LinearSite, coverage, decide, find_linears
from amber_ext.methods.quantize import quantize_
from amber_ext.methods.sparsify import check_config, densify_, refuse_quantized, sparsify_
from amber_ext.ops.pattern import UNPRUNED, Pattern
from amber_ext.phase import decode, install_phase_hooks, remove_phase_hooks
from amber_ext.planning.planner import plan

_LEARNED_MASKS = {"maskpro": maskpro_, "lbc": lbc_}


@dataclass(frozen=True)
class Calibration:
    """What methods that look at data may use.

    Attributes:
        batches: token ids ``[B, T]`` int64.
        skip: layers in which ``layer_skip`` and ``robust_norm_skips`` leave q and gate dense.
    """

    batches: Sequence[torch.Tensor] = ()
    skip: int = 0


def check_rows(model: torch.nn.Module, rows: Sequence[Row]) -> None:
    """Raises ValueError when a configuration or a method does not fit the model."""
    refuse_quantized(model)
    sites = find_linears(model)
    for row in rows:
        if row.method != DENSE or row.config is not None:
            check_config(sites, row.config or AmberConfig())
        if row.config is None and (row.method in COMPARATORS or row.method.startswith(WEIGHT_PREFIX)):
            _chosen_sites(model, row.pattern)


@contextlib.contextmanager
def prepared(
    model: torch.nn.Module, row: Row, calibration: Calibration
) -> Iterator[tuple[torch.nn.Module, float]]:
    """The model that a line is about and its coverage; ``model`` is dense again afterwards.

    Methods that change weights work on a copy, so that two models are in memory. A model that is quantised already
    stays as it is (`rows_of_quantized`).
    """
    if any(isinstance(module, QuantizedLinear) for module in model.modules()):
        with contextlib.nullcontext() if row.pattern else decode():
            yield model, _pruned_share(model) if row.pattern else 0.0
        return
    densify_(model)
    if row.method == DENSE and row.config is None:
        yield model, 0.0
        return
    if row.config is None and row.method.startswith(WEIGHT_PREFIX):
        yield _with_pruned_weights(model, row, calibration)
        return
    if row.config is None and row.method in COMPARATORS:
        with _compared(model, row, calibration) as coverage:
            yield model, coverage
        return
    config = row.config or _config_of(row, model)
    if row.method == UNQUANTIZED and row.config is None:
        config = plan(model, calibration.batches, config, quantization_loss=QUANTIZATION_LOSS)
    if isinstance(config, OutstandingSparseConfig):
        quantized = copy.deepcopy(model)
        report = quantize_(quantized, config, calibration.batches)
        yield quantized, report.coverage
        return
    if row.method == FOLDED and row.config is None:
        folded = copy.deepcopy(model)
        yield folded, sparsify_(folded, config, fold_scores=True).coverage
        return
    if row.method in SKIPPING and row.config is None:
        config = plan(model, calibration.batches, config, skip=calibration.skip)
    try:
        yield model, sparsify_(model, config).coverage
    finally:
        densify_(model)


def _config_of(row: Row, model: torch.nn.Module) -> AmberConfig:
    config = CONFIGS[row.method]
    if row.method == NAIVE:
        every = (site.projection for site in find_linears(model) if site.obstacle is None)
        config = dataclasses.replace(config, targets=tuple(dict.fromkeys(every)))
    return dataclasses.replace(config, pattern=Pattern(row.pattern)) if row.pattern else config


def _pruned_share(model: torch.nn.Module) -> float:
    """The coverage of a quantised model as its layers say."""

    @dataclass(frozen=True)
    class Part:
        macs: float
        sparse: bool

    return coverage(
        Part(site.macs, getattr(model.get_submodule(site.module_name), "pattern", UNPRUNED) != UNPRUNED)
        for site in find_linears(model)
    )


@contextlib.contextmanager
def _compared(model: torch.nn.Module, row: Row, calibration: Calibration) -> Iterator[float]:
    chosen, covered = _chosen_sites(model, row.pattern)
    functions = COMPARATORS[row.method].functions(model, chosen, calibration.batches, Pattern(row.pattern))
    install_phase_hooks(model)
    try:
        with changed_inputs(model, functions):
            yield covered
    finally:
        remove_phase_hooks(model)


def _chosen_sites(model: torch.nn.Module, pattern: str) -> tuple[list[LinearSite], float]:
    """The projections that the default targets prune at this pattern, and their coverage.

    Raises:
        ValueError: one of them is part of fused experts, which only `sparsify_` prunes.
    """
    config = AmberConfig(pattern=pattern)
    decisions = {site: decide(site, config) for site in find_linears(model)}
    chosen = [site for site, decision in decisions.items() if decision.sparse]
    if fused := [site.name for site in chosen if site.is_fused]:
        raise ValueError(
            f"methods: what prunes weights or comes from other work does not know fused experts ('{fused[0]}'); leave it out"
        )
    return chosen, coverage(decisions.values())


def _with_pruned_weights(
    model: torch.nn.Module, row: Row, calibration: Calibration
) -> tuple[torch.nn.Module, float]:
    chosen, covered = _chosen_sites(model, row.pattern)
    pruned = copy.deepcopy(model)
    score = row.method.removeprefix(WEIGHT_PREFIX)
    names = [site.name for site in chosen]
    if score in _LEARNED_MASKS:
        _LEARNED_MASKS[score](pruned, names, Pattern(row.pattern), calibration.batches)
    else:
        prune_weights_(pruned, names, row.pattern, score, calibration.batches)
    return pruned, covered
