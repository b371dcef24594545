"""``amber-ext prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amber_ext.cli.options import (
    PATTERN_HELP,
    JsonOption,
    Measurement,
    MeasureOption,
    ModelArgument,
    RescaleOption,
    ScoreOption,
    TargetOption,
    console,
    load,
    print_json,
)
from amber_ext.config import DEFAULT_TARGETS, AmberConfig


def run(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="Folder for the pruned model.")],
    config: Annotated[
        Path | None,
        typer.Option(
            help="An AmberConfig JSON file, as `amber-ext plan` writes it, instead of the options below."
        ),
    ] = None,
    pattern: Annotated[str, typer.Option(help=PATTERN_HELP)] = "2:4",
    score: ScoreOption = "robust_norm",
    target: TargetOption = list(DEFAULT_TARGETS),
    rescale: RescaleOption = "none",
    fold_scores: Annotated[
        bool,
        typer.Option(
            "--fold-scores",
            help="Fold scores into the norms before q and gate, which are then pruned by |x|.",
        ),
    ] = False,
    measure: MeasureOption = None,
    as_json: JsonOption = False,
) -> None:
    """Save a model with a pruned prefill: its own weights, a config.json that says what is pruned, and a model card."""
    from amber_ext.folders import check_replaced_folder
    from amber_ext.integrations.saving import save_pruned, save_quantized
    from amber_ext.methods.prune_quantized import prune_quantized_
    from amber_ext.methods.sparsify import sparsify_
    from amber_ext.models import is_quantized_folder

    if config is not None:
        wanted = AmberConfig.load(config)
    else:
        wanted = AmberConfig(pattern=pattern, score=score, targets=tuple(target), rescale=rescale)
    quantized = is_quantized_folder(model)
    if quantized and fold_scores:
        raise ValueError(
            f"fold_scores: {model!r} is quantised; only weights that are not can take other factors"
        )
    check_replaced_folder("out", out)
    measurement = Measurement(measure)
    # The weights are saved, so they keep the dtype that they have.
    loaded = load(model, "auto")
    measurement.take("original", loaded)
    if quantized:
        report = prune_quantized_(loaded.model, wanted)
    else:
        report = sparsify_(loaded.model, wanted, fold_scores=fold_scores)
    measurement.take("this model", loaded)
    save = save_quantized if quantized else save_pruned
    save(loaded.model, out, loaded.tokenizer, measurement.card(report, model))
    if as_json:
        return print_json({**report.to_dict(), "perplexity": measurement.values})
    console.print(str(report), highlight=False)
    console.print(f"Wrote {out}", highlight=False)
