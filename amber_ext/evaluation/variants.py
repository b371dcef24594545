"""The variants of a model that are compared: methods at patterns, and how the model becomes each of them."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from amber_ext.config import AmberConfig, OutstandingSparseConfig
from amber_ext.evaluation.weight_pruning import prune_weights_
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.layers.sites import coverage, decide, find_linears
from amber_ext.methods.quantize import quantize_
from amber_ext.methods.sparsify import check_config, densify_, refuse_quantized, sparsify_
from amber_ext.ops.pattern import UNPRUNED, Pattern
from amber_ext.ops.scores import MAGNITUDE, SCORES
from amber_ext.phase import decode
from amber_ext.planning.planner import plan

DENSE = "dense"
W8A8 = "w8a8"
# The paper's three steps: every projection by magnitude; q, gate and down, q and gate dense in the most sensitive layers;
# the same by robust norm.
NAIVE, LAYER_SKIP, SKIPS = LADDER = ("naive", "layer_skip", "robust_norm_skips")
WEIGHT_PREFIX = "weight_"

# Methods that have no pattern.
UNPATTERNED = (DENSE, W8A8)

# What each method prunes or quantises; patterns are put in. Weights are chosen by the targets of the first.
_CONFIGS: dict[str, AmberConfig] = {
    **{score: AmberConfig(score=score) for score in SCORES},
    "robust_norm_rescale": AmberConfig(rescale="variance"),
    NAIVE: AmberConfig(score=MAGNITUDE),
    LAYER_SKIP: AmberConfig(score=MAGNITUDE),
    SKIPS: AmberConfig(),
    W8A8: OutstandingSparseConfig(targets=()),
    "outstanding": OutstandingSparseConfig(),
    "outstanding_trimmed": OutstandingSparseConfig(score="robust_norm_trimmed"),
}

METHODS = {
    DENSE: "the model as it is",
    **{name: f"inputs of q, gate and down pruned by {score.description}" for name, score in SCORES.items()},
    "robust_norm_rescale": "robust norm, each token rescaled to its variance",
    NAIVE: "inputs of every projection pruned by |x|: the paper's first step",
    LAYER_SKIP: "|x| on q, gate and down, q and gate dense in the most sensitive layers: its second step",
    SKIPS: "the same by robust norm: its third step",
    W8A8: "all linear layers in int8 (SmoothQuant)",
    "outstanding": "Outstanding-sparse with its defaults: int8, pruned and rescaled",
    "outstanding_trimmed": "the same by the robust norm without the outliers",
    "weight_magnitude": "for contrast: weights of q, gate and down pruned by |w|",
    "weight_wanda": "for contrast: weights of q, gate and down pruned by Wanda",
}


@dataclass(frozen=True)
class Row:
    """One line of the table: a method at a pattern, or a named configuration.

    Attributes:
        pattern: empty for what has none.
        config: an `AmberConfig` or `OutstandingSparseConfig` instead of what the method's name stands for.
    """

    method: str
    pattern: str
    config: AmberConfig | None = None

    @property
    def key(self) -> str:
        """What the line is called in the results file."""
        return f"{self.method} {self.pattern}".rstrip()


@dataclass(frozen=True)
class Calibration:
    """What methods that look at data may use.

    Attributes:
        batches: token ids ``[B, T]`` int64.
        skip: layers in which ``layer_skip`` and ``robust_norm_skips`` leave q and gate dense.
    """

    batches: Sequence[torch.Tensor] = ()
    skip: int = 0


def make_rows(
    methods: Sequence[str], patterns: Sequence[str], configs: Mapping[str, AmberConfig]
) -> list[Row]:
    """Every line: the dense model, each method at each pattern, each configuration.

    Raises:
        ValueError: an unknown method or pattern, a configuration that is called like a method or whose line would be
            called like another, or weights asked for at a windowed pattern.
    """
    for name in configs:
        if name in METHODS:
            raise ValueError(
                f"config: {name!r} is the name of a method, so results could not be told apart; rename the file "
                f"(not allowed: {', '.join(METHODS)})"
            )
    parsed = [str(Pattern(pattern)) for pattern in patterns]
    rows = [Row(DENSE, "")]
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"methods: {method!r} is not known; allowed: {', '.join(METHODS)}")
        if method in UNPATTERNED:
            rows.append(Row(method, ""))
            continue
        for pattern in parsed:
            if method.startswith(WEIGHT_PREFIX) and Pattern(pattern).windowed:
                raise ValueError(
                    f"patterns: '{pattern}' is not for {method}: windows hold the channels of a token; run it apart, "
                    "with N:M patterns (the same --out keeps both)"
                )
            rows.append(Row(method, pattern))
    rows += [config_row(name, config) for name, config in configs.items()]
    by_key: dict[str, Row] = {}
    for row in rows:
        if by_key.setdefault(row.key, row) != row:
            raise ValueError(
                f"config: {row.method!r} gives a line that is called {row.key!r} like another; rename the file"
            )
    return list(by_key.values())


def config_row(name: str, config: AmberConfig) -> Row:
    """The line of a configuration."""
    return Row(name, ", ".join(map(str, config.patterns)) if config.targets else "", config)


def rows_of_quantized(model: torch.nn.Module) -> list[Row]:
    """The lines of a model that `quantize_` made: dense 8-bit, as decode runs, and with its pruned prefill."""
    layers = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    method = f"W8A8 {layers[0].dtype}"
    patterns = sorted({str(layer.pattern) for layer in layers if layer.pattern != UNPRUNED})
    return [Row(method, ""), *([Row(method, ", ".join(patterns))] if patterns else [])]


def check_rows(model: torch.nn.Module, rows: Sequence[Row]) -> None:
    """Raises ValueError when a configuration does not fit the model."""
    refuse_quantized(model)
    sites = find_linears(model)
    for row in rows:
        if row.method != DENSE or row.config is not None:
            check_config(sites, row.config or AmberConfig())


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
    config = row.config or _config_of(row, model)
    if isinstance(config, OutstandingSparseConfig):
        quantized = copy.deepcopy(model)
        report = quantize_(quantized, config, calibration.batches)
        yield quantized, report.coverage
        return
    if row.method in (LAYER_SKIP, SKIPS) and row.config is None:
        config = plan(model, calibration.batches, config, skip=calibration.skip)
    try:
        yield model, sparsify_(model, config).coverage
    finally:
        densify_(model)


def _config_of(row: Row, model: torch.nn.Module) -> AmberConfig:
    config = _CONFIGS[row.method]
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


def _with_pruned_weights(
    model: torch.nn.Module, row: Row, calibration: Calibration
) -> tuple[torch.nn.Module, float]:
    config = AmberConfig(pattern=row.pattern)
    decisions = {site.name: decide(site, config) for site in find_linears(model)}
    chosen = [name for name, decision in decisions.items() if decision.sparse]
    pruned = copy.deepcopy(model)
    score = row.method.removeprefix(WEIGHT_PREFIX)
    prune_weights_(pruned, chosen, row.pattern, score, calibration.batches)
    return pruned, coverage(decisions.values())
