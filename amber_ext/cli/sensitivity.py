"""``amber-ext sensitivity``."""

from __future__ import annotations

import dataclasses

from rich.table import Table

from amber_ext.cli.options import (
    JsonOption,
    ModelArgument,
    PatternOption,
    PlotOption,
    ScoreOption,
    TextOption,
    TokensOption,
    WindowOption,
    console,
    load,
    print_json,
    text_tokens,
)
from amber_ext.config import AmberConfig
from amber_ext.perplexity import WINDOW


def run(
    model: ModelArgument,
    text: TextOption = None,
    pattern: PatternOption = "2:4",
    score: ScoreOption = "robust_norm",
    tokens: TokensOption = 4096,
    window: WindowOption = WINDOW,
    as_json: JsonOption = False,
    plot: PlotOption = None,
) -> None:
    """How much each layer's output suffers when its input is pruned (e_q)."""
    from amber_ext.evaluation.plots import check_plot, plot_sensitivity
    from amber_ext.planning.sensitivity import sensitivity

    config = AmberConfig(pattern=pattern, score=score)
    if plot:
        check_plot("plot", plot)
    loaded = load(model)
    batches = [ids[None] for ids in text_tokens(loaded, text, tokens).split(window)]
    measured = sensitivity(loaded.model, batches, config, progress=True)
    if plot:
        plot_sensitivity(measured, pattern, plot)
    if as_json:
        return print_json([dataclasses.asdict(entry) for entry in measured])
    projections = list(dict.fromkeys(entry.projection for entry in measured))
    table = Table("layer", *projections, title=f"e_q at {pattern}, {score}")
    for layer in dict.fromkeys(entry.layer for entry in measured):
        errors = {e.projection: f"{e.error:.3f}" for e in measured if e.layer == layer}
        table.add_row(str(layer), *(errors.get(p, "") for p in projections))
    console.print(table)
