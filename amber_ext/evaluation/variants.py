"""The variants of a model that are compared: methods at patterns, and configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from amber_ext.config import AmberConfig, OutstandingSparseConfig
from amber_ext.evaluation.comparators import COMPARATORS
from amber_ext.evaluation.comparators.lbc import check_pattern
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.ops.pattern import UNPRUNED, Pattern
from amber_ext.ops.scores import MAGNITUDE, SCORES

DENSE = "dense"
W8A8 = "w8a8"
FOLDED = "robust_norm_folded"
UNQUANTIZED = "outstanding_unquantized"
# The paper's three steps: every projection by magnitude; q, gate and down, q and gate dense in the most sensitive layers;
# the same by robust norm.
NAIVE, LAYER_SKIP, SKIPS = LADDER = ("naive", "layer_skip", "robust_norm_skips")
WEIGHT_PREFIX = "weight_"
WEIGHT_LBC = "weight_lbc"

# What the quantised projections of `UNQUANTIZED` may cost together by the loss model, nats per token.
QUANTIZATION_LOSS = 0.002

# Methods that have no pattern.
UNPATTERNED = (DENSE, W8A8)

SKIPPING = (LAYER_SKIP, SKIPS)

# What each method prunes or quantises; patterns are put in. Weights are chosen by the targets of the first.
CONFIGS: dict[str, AmberConfig] = {
    **{score: AmberConfig(score=score) for score in SCORES},
    "robust_norm_rescale": AmberConfig(rescale="variance"),
    FOLDED: AmberConfig(),
    NAIVE: AmberConfig(score=MAGNITUDE),
    LAYER_SKIP: AmberConfig(score=MAGNITUDE),
    SKIPS: AmberConfig(),
    W8A8: OutstandingSparseConfig(targets=()),
    "outstanding": OutstandingSparseConfig(),
    UNQUANTIZED: OutstandingSparseConfig(),
    "outstanding_trimmed": OutstandingSparseConfig(score="robust_norm_trimmed"),
}

METHODS = {
    DENSE: "the model as it is",
    **{name: f"inputs of q, gate and down pruned by {score.description}" for name, score in SCORES.items()},
    "robust_norm_rescale": "robust norm, each token rescaled to its variance",
    FOLDED: "robust norm, folded into the norm before q and gate, which are then pruned by |x|",
    NAIVE: "inputs of every projection pruned by |x|: the paper's first step",
    LAYER_SKIP: "|x| on q, gate and down, q and gate dense in the most sensitive layers: its second step",
    SKIPS: "the same by robust norm: its third step",
    W8A8: "all linear layers in int8 (SmoothQuant)",
    "outstanding": "Outstanding-sparse with its defaults: int8, pruned and rescaled",
    UNQUANTIZED: f"the same, projections in 16 bits until the others cost {QUANTIZATION_LOSS} nats per token",
    "outstanding_trimmed": "Outstanding-sparse by the robust norm without the outliers",
    **{name: comparator.description for name, comparator in COMPARATORS.items()},
    "weight_magnitude": "for contrast: weights of q, gate and down pruned by |w|",
    "weight_wanda": "for contrast: weights of q, gate and down pruned by Wanda",
    "weight_maskpro": "for contrast: Wanda's masks, learned on by policy gradient for a few steps (MaskPro)",
    WEIGHT_LBC: "for contrast: the best combination of each group, by scores learned in a few steps (LBC)",
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
            if method == WEIGHT_LBC:
                check_pattern(Pattern(pattern))
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
