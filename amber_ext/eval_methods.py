"""The methods that ``amber-ext eval`` compares, and a model prepared for each."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from amber_ext.config import AmberConfig
from amber_ext.layers import find_linears
from amber_ext.outstanding_config import OutstandingSparseConfig
from amber_ext.pattern import Pattern
from amber_ext.planner import plan
from amber_ext.quantize import quantize_
from amber_ext.sensitivity import planned_coverage
from amber_ext.sparsify import check_config, decide, densify_, sparsify_
from amber_ext.weight_pruning import prune_weights_

DENSE = "dense"
W8A8 = "w8a8"

# Methods that have no pattern.
UNPATTERNED = (DENSE, W8A8)

METHODS = {
    DENSE: "the model as it is",
    "magnitude": "inputs of q, gate and down pruned by |x|",
    "wanda": "the same by |x| · norm of the weight's column",
    "robust_norm": "the same by |x| · robust norm (Amber Pruner)",
    "robust_norm_rescale": "the same, each token rescaled to its variance",
    "robust_norm_skips": "robust norm, q and gate dense in the most sensitive layers",
    W8A8: "all linear layers in int8 (SmoothQuant)",
    "outstanding": "Outstanding-sparse with its defaults: int8, pruned and rescaled",
    "weight_magnitude": "for contrast: weights of q, gate and down pruned by |w|",
    "weight_wanda": "for contrast: weights of q, gate and down pruned by Wanda",
}

_ACTIVATION_CONFIGS = {
    "magnitude": {"score": "magnitude"},
    "wanda": {"score": "wanda"},
    "robust_norm": {"score": "robust_norm"},
    "robust_norm_rescale": {"score": "robust_norm", "rescale": "variance"},
    "robust_norm_skips": {"score": "robust_norm"},
}


@dataclass(frozen=True)
class Row:
    """One line of the table: a method at a pattern, or a named `AmberConfig`."""

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
        skip: layers that ``robust_norm_skips`` leaves dense.
    """

    batches: Sequence[torch.Tensor]
    skip: int


def make_rows(methods: Sequence[str], patterns: Sequence[str], configs: dict[str, AmberConfig]) -> list[Row]:
    """Every line: the dense model, each method at each pattern, each configuration.

    Raises:
        ValueError: an unknown method or pattern, or weights asked for at a windowed pattern.
    """
    parsed = [str(Pattern(pattern)) for pattern in patterns]
    rows = [Row(DENSE, "")]
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"methods: {method!r} is not known; allowed: {', '.join(METHODS)}")
        if method in UNPATTERNED:
            rows.append(Row(method, ""))
            continue
        for pattern in parsed:
            if method.startswith("weight_") and Pattern(pattern).windowed:
                raise ValueError(
                    f"patterns: '{pattern}' is not for {method}: windows hold the channels of a token; run it apart, "
                    "with N:M patterns (the same --out keeps both)"
                )
            rows.append(Row(method, pattern))
    for name, config in configs.items():
        rows.append(Row(name, ", ".join(map(str, config.patterns)), config))
    return list({row.key: row for row in rows}.values())


def check_rows(model: torch.nn.Module, rows: Sequence[Row]) -> None:
    """Raises ValueError when a configuration does not fit the model."""
    sites = find_linears(model)
    check_config(sites, AmberConfig())
    for row in rows:
        if row.config is not None:
            check_config(sites, row.config)


@contextlib.contextmanager
def prepared(
    model: torch.nn.Module, row: Row, calibration: Calibration
) -> Iterator[tuple[torch.nn.Module, float]]:
    """The model that a line is about and its coverage; ``model`` is dense again afterwards.

    Methods that change weights work on a copy, so that two models are in memory.
    """
    densify_(model)
    if row.method == DENSE:
        yield model, 0.0
    elif row.method in (W8A8, "outstanding"):
        fields = {"targets": ()} if row.method == W8A8 else {"pattern": row.pattern}
        quantized = copy.deepcopy(model)
        report = quantize_(quantized, OutstandingSparseConfig(**fields), calibration.batches)
        yield quantized, report.coverage
    elif row.method.startswith("weight_"):
        config = AmberConfig(pattern=row.pattern)
        sites = find_linears(model)
        chosen = [site.name for site in sites if decide(site, config).sparse]
        pruned = copy.deepcopy(model)
        prune_weights_(pruned, chosen, row.pattern, row.method.removeprefix("weight_"), calibration.batches)
        yield pruned, planned_coverage(sites, config)
    else:
        config = row.config or AmberConfig(pattern=row.pattern, **_ACTIVATION_CONFIGS[row.method])
        if row.method == "robust_norm_skips":
            config = plan(model, calibration.batches, config, skip=calibration.skip)
        try:
            yield model, sparsify_(model, config).coverage
        finally:
            densify_(model)
