"""``amber-ext eval``: methods and patterns against tasks and perplexity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amber_ext.cli.options import (
    JsonOption,
    ModelArgument,
    WindowOption,
    console,
    load,
    messages,
    print_json,
)
from amber_ext.config import AmberConfig
from amber_ext.evaluation.content import contents
from amber_ext.evaluation.plots import check_plot, plot_comparison
from amber_ext.evaluation.prepare import Calibration, check_rows
from amber_ext.evaluation.results import PERPLEXITY, RESULTS, EvalRun
from amber_ext.evaluation.run import run as run_cells
from amber_ext.evaluation.table import markdown_table, terminal_table
from amber_ext.evaluation.tasks import load_tasks
from amber_ext.evaluation.text import builtin_text, read_text, tokenize
from amber_ext.evaluation.variants import METHODS, make_rows
from amber_ext.files import check_file, check_folder, write_text
from amber_ext.perplexity import WINDOW


def _load_configs(paths: list[Path]) -> dict[str, AmberConfig]:
    """Name to configuration; the name is the file's, without its ending."""
    configs: dict[str, AmberConfig] = {}
    for path in paths:
        if path.stem in configs:
            raise ValueError(
                f"config: {str(path)!r} is named like another configuration, {path.stem!r}; rename one of the files"
            )
        configs[path.stem] = AmberConfig.load(path)
    return configs


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def run(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="Folder for results.json, table.md and plot.png.")],
    tasks: Annotated[str, typer.Option(help="lm-eval tasks and groups, by commas.")] = "",
    methods: Annotated[
        str, typer.Option(help=f"By commas, of: {', '.join(METHODS)}.")
    ] = "magnitude,robust_norm",
    patterns: Annotated[str, typer.Option(help="N:M, 10:16w or 12:16w, by commas.")] = "2:4,8:16",
    config: Annotated[
        list[Path], typer.Option(help="An AmberConfig JSON file as one more line; repeat for more.")
    ] = [],
    data: Annotated[
        Path | None, typer.Option(help="Folder with the JSONL files of the tasks that come with amber_ext.")
    ] = None,
    include_path: Annotated[Path | None, typer.Option(help="Folder with further lm-eval task YAMLs.")] = None,
    text: Annotated[Path | None, typer.Option(help="UTF-8 text: adds a column of perplexities.")] = None,
    tokens: Annotated[int, typer.Option(help="How many tokens of --text to score.")] = 8192,
    window: WindowOption = WINDOW,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="UTF-8 text for the methods that calibrate. [default: Python's own language reference]"
        ),
    ] = None,
    calibration_tokens: Annotated[int, typer.Option(help="How many tokens of it.")] = 4096,
    skip: Annotated[
        int, typer.Option(help="Layers in which layer_skip and robust_norm_skips leave q and gate dense.")
    ] = 5,
    limit: Annotated[
        int | None, typer.Option(help="Documents a task, the first ones. [default: all]")
    ] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(help="Examples in the prompt. [default: the task's own]")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Sequences at once.")] = 16,
    as_json: JsonOption = False,
) -> None:
    """Zero- and few-shot tasks (lm-eval) and perplexity, by method and pattern.

    Stopped, the same command goes on where it was: what is in OUT is not run again. Several may run at once.
    """
    names = _split(tasks)
    if not names and text is None:
        raise ValueError("tasks: nothing to measure; name --tasks, or a --text for perplexity")
    rows = make_rows(_split(methods), _split(patterns), _load_configs(config))
    settings = {
        "limit": limit,
        "num_fewshot": num_fewshot,
        "tokens": tokens,
        "window": window,
        "calibration_tokens": calibration_tokens,
        "skip": skip,
    }
    # Before anything large is read.
    check_folder("out", out)
    if out.is_dir():
        for name in (RESULTS, "table.md"):
            check_file("out", out / name)
        check_plot("out", out / "plot.png")
    texts = {
        "text": None if text is None else (str(text), read_text(text)),
        "calibration": ("Python's own language reference", builtin_text())
        if calibration is None
        else (str(calibration), read_text(calibration)),
    }
    with messages.status(f"Reading {model}"):
        content = contents(model, names, data, include_path, texts)
    results = EvalRun(out, settings, content)
    columns = [*([PERPLEXITY] if text is not None else []), *names]
    if results.missing(rows, columns):
        loaded_tasks = load_tasks(names, data, include_path)
        loaded = load(model)
        check_rows(loaded.model, rows)
        ids = None if text is None else tokenize(loaded.tokenizer, texts["text"][1], tokens)
        calibrated = tokenize(loaded.tokenizer, texts["calibration"][1], calibration_tokens)
        batches = [part[None] for part in calibrated.split(window)]
        try:
            run_cells(
                results,
                loaded.model,
                loaded.tokenizer,
                rows,
                loaded_tasks,
                Calibration(batches, skip),
                tokens=ids,
                window=window,
                limit=limit,
                num_fewshot=num_fewshot,
                batch_size=batch_size,
                report=lambda message: messages.print(message, highlight=False),
            )
        except KeyboardInterrupt:
            left = sum(len(found) for _, found in results.missing(rows, columns))
            raise RuntimeError(
                f"stopped with {left} cells to go; what is done is in {results.path}, and the same command goes on "
                "from there"
            ) from None
    # Of two runs at once, the one that ends last writes the table of both.
    with results.locked():
        found = results.rows()
        write_text(out / "table.md", markdown_table(found))
        plot_comparison(found, out / "plot.png")
    if as_json:
        return print_json(results.data)
    # A pipe has no width to fit a wide table into.
    console.print(terminal_table(found) if console.is_terminal else markdown_table(found), soft_wrap=True)
    console.print(f"Wrote {out}/results.json, table.md and plot.png", highlight=False)
