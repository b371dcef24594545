"""``amber-ext quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amber_ext.cli.options import (
    JsonOption,
    Measurement,
    MeasureOption,
    ModelArgument,
    RescaleOption,
    ScoreOption,
    TargetOption,
    TextOption,
    TokensOption,
    WindowOption,
    console,
    load,
    print_json,
    text_tokens,
)
from amber_ext.config import DEFAULT_TARGETS, EVERY_LAYER, OutstandingSparseConfig
from amber_ext.perplexity import WINDOW


def run(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="Folder for the quantised model.")],
    text: TextOption = None,
    pattern: Annotated[str, typer.Option(help="N:M, 10:16w or 12:16w, of the pruned projections.")] = "2:4",
    score: ScoreOption = "robust_norm",
    target: TargetOption = list(DEFAULT_TARGETS),
    prune: Annotated[bool, typer.Option(help="Prune in prefill, or only quantise.")] = True,
    rescale: RescaleOption = "variance",
    direction: Annotated[
        str, typer.Option(help="smoothquant, outstanding (the paper's) or none.")
    ] = "smoothquant",
    alpha: Annotated[float, typer.Option(help="Smoothing strength, in [0, 1].")] = 0.5,
    dtype: Annotated[str, typer.Option(help="int8 or e4m3.")] = "int8",
    unquantized: Annotated[
        list[str], typer.Option(help="Projection that keeps its dtype; repeat for more.")
    ] = [],
    config: Annotated[
        Path | None, typer.Option(help="An OutstandingSparseConfig JSON file instead of the options above.")
    ] = None,
    tokens: TokensOption = 2048,
    window: WindowOption = WINDOW,
    measure: MeasureOption = None,
    as_json: JsonOption = False,
) -> None:
    """Quantise a model to W8A8 with pruned prefill (Outstanding-sparse), and save it with a model card."""
    from amber_ext.folders import check_replaced_folder
    from amber_ext.integrations.saving import save_quantized
    from amber_ext.methods.quantize import quantize_

    if config is not None:
        wanted = OutstandingSparseConfig.load(config)
    else:
        wanted = OutstandingSparseConfig(
            pattern=pattern,
            score=score,
            targets=tuple(target) if prune else (),
            rescale=rescale,
            direction=direction,
            alpha=alpha,
            dtype=dtype,
            unquantized={name: EVERY_LAYER for name in unquantized},
        )
    check_replaced_folder("out", out)
    measurement = Measurement(measure)
    loaded = load(model)
    measurement.take("original", loaded)
    batches = [ids[None] for ids in text_tokens(loaded, text, tokens).split(window)]
    report = quantize_(loaded.model, wanted, batches, progress=True)
    measurement.take("this model", loaded)
    save_quantized(loaded.model, out, loaded.tokenizer, measurement.card(report, model))
    if as_json:
        return print_json({**report.to_dict(), "perplexity": measurement.values})
    console.print(str(report), highlight=False)
    console.print(f"Wrote {out}", highlight=False)
