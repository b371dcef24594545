"""``amber-ext ppl``: `amber-ext eval` without tasks and without a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amber_ext.cli.options import (
    PATTERN_HELP,
    SCORE_NAMES,
    JsonOption,
    ModelArgument,
    PlotOption,
    RescaleOption,
    TargetOption,
    TextOption,
    TokensOption,
    WindowOption,
    console,
    load,
    print_json,
    text_tokens,
)
from amber_ext.config import DEFAULT_TARGETS, AmberConfig
from amber_ext.models import is_quantized_folder
from amber_ext.perplexity import WINDOW


def run(
    model: ModelArgument,
    text: TextOption = None,
    pattern: Annotated[list[str], typer.Option(help=f"{PATTERN_HELP} Repeat for more.")] = ["2:4"],
    score: Annotated[list[str], typer.Option(help=f"One of: {SCORE_NAMES}; repeat for more.")] = [
        "robust_norm"
    ],
    target: TargetOption = list(DEFAULT_TARGETS),
    rescale: RescaleOption = "none",
    config: Annotated[
        Path | None, typer.Option(help="An AmberConfig JSON file instead of the options above.")
    ] = None,
    tokens: TokensOption = 8192,
    window: WindowOption = WINDOW,
    as_json: JsonOption = False,
    plot: PlotOption = None,
) -> None:
    """Perplexity: dense against pruned. For a quantised model: dense 8-bit against its pruned prefill."""
    from amber_ext.evaluation.plots import check_plot, plot_comparison
    from amber_ext.evaluation.prepare import Calibration, check_rows
    from amber_ext.evaluation.results import PERPLEXITY, EvalRun
    from amber_ext.evaluation.run import run as evaluate
    from amber_ext.evaluation.table import terminal_table
    from amber_ext.evaluation.variants import config_row, make_rows, rows_of_quantized

    if plot:
        check_plot("plot", plot)
    quantized = is_quantized_folder(model)
    changed = (pattern, score, target, rescale, config) != (
        ["2:4"],
        ["robust_norm"],
        list(DEFAULT_TARGETS),
        "none",
        None,
    )
    if quantized and changed:
        raise ValueError(
            f"model: {model!r} is quantised and keeps its own pattern, score, targets and rescale; "
            "leave those options and --config out"
        )
    if config is not None:
        loaded_config = AmberConfig.load(config)
        configs = [(loaded_config.score, loaded_config)]
    else:
        configs = [
            (s, AmberConfig(pattern=p, score=s, targets=tuple(target), rescale=rescale))
            for s in score
            for p in pattern
        ]
    loaded = load(model)
    ids = text_tokens(loaded, text, tokens)
    if quantized:
        rows = rows_of_quantized(loaded.model)
    else:
        rows = [*make_rows([], [], {}), *(config_row(name, fields) for name, fields in configs)]
        check_rows(loaded.model, rows)
    results = EvalRun(None, {"model": model, "tokens": len(ids), "window": window})
    evaluate(results, loaded.model, loaded.tokenizer, rows, {}, Calibration(), tokens=ids, window=window)
    found = results.rows()
    if plot:
        plot_comparison(found, plot)
    if as_json:
        lines = [
            {
                "method": row["method"],
                "pattern": row["pattern"] or "dense",
                "coverage": row["coverage"],
                "perplexity": row["cells"][PERPLEXITY]["value"],
            }
            for row in found
        ]
        return print_json({**results.data["settings"], "results": lines})
    console.print(terminal_table(found))
