"""``amber-ext``: the command line tool."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from amber_ext.checkpoint import is_quantized_folder, save_quantized
from amber_ext.cli_common import (
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
    messages,
    print_json,
    text_tokens,
)
from amber_ext.cli_eval import evaluate
from amber_ext.config import DEFAULT_TARGETS, AmberConfig
from amber_ext.evaluate import WINDOW
from amber_ext.info import environment_info
from amber_ext.outstanding_config import EVERY_LAYER, OutstandingSparseConfig
from amber_ext.tables import plan_table, results_table

app = typer.Typer(
    help="Cheaper LLM prefill by N:M activation pruning (Amber Pruner).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("eval")(evaluate)


@app.command()
def info(as_json: JsonOption = False) -> None:
    """What is installed, built and found."""
    data = environment_info()
    if as_json:
        return print_json(data)
    table = Table("what", "value", show_header=False)
    for name, value in data.items():
        if name not in ("build", "kernels"):
            table.add_row(name.replace("_", " "), str(value))
    for name, value in (data["build"] or {}).items():
        table.add_row(f"build: {name.replace('_', ' ')}", str(value))
    console.print(table)
    kernels = Table("kernel", "device", "target", "patterns", "dtypes")
    for kernel in data["kernels"]:
        kernels.add_row(*kernel.values())
    console.print(kernels)


@app.command()
def ppl(
    model: ModelArgument,
    text: TextOption = None,
    pattern: Annotated[list[str], typer.Option(help="N:M, 10:16w or 12:16w; repeat for more.")] = ["2:4"],
    score: Annotated[list[str], typer.Option(help="magnitude, wanda or robust_norm; repeat for more.")] = [
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
    from amber_ext.compare import compare_perplexity, quantized_perplexity
    from amber_ext.plots import plot_perplexity

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
        configs = [AmberConfig.load(config)]
    else:
        configs = [
            AmberConfig(pattern=p, score=s, targets=tuple(target), rescale=rescale)
            for s in score
            for p in pattern
        ]
    loaded = load(model)
    ids = text_tokens(loaded, text, tokens)
    if quantized:
        results = quantized_perplexity(loaded.model, ids, window, progress=True)
    else:
        results = compare_perplexity(loaded.model, ids, configs, window, progress=True)
    rows = [dataclasses.asdict(result) for result in results]
    if plot:
        plot_perplexity(rows[1:] or rows, results[0].perplexity, plot)
    if as_json:
        return print_json({"model": model, "tokens": len(ids), "window": window, "results": rows})
    console.print(results_table(results))


@app.command()
def sensitivity(
    model: ModelArgument,
    text: TextOption = None,
    pattern: Annotated[str, typer.Option(help="N:M, 10:16w or 12:16w.")] = "2:4",
    score: Annotated[str, typer.Option(help="magnitude, wanda or robust_norm.")] = "robust_norm",
    tokens: TokensOption = 4096,
    window: WindowOption = WINDOW,
    as_json: JsonOption = False,
    plot: PlotOption = None,
) -> None:
    """How much each layer's output suffers when its input is pruned (e_q)."""
    from amber_ext.plots import plot_sensitivity
    from amber_ext.sensitivity import sensitivity as measure

    config = AmberConfig(pattern=pattern, score=score)
    loaded = load(model)
    batches = [ids[None] for ids in text_tokens(loaded, text, tokens).split(window)]
    measured = measure(loaded.model, batches, config, progress=True)
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


@app.command()
def plan(
    model: ModelArgument,
    coverage: Annotated[
        float | None, typer.Option(help="Least share of linear FLOPs to run sparse, in (0, 1].")
    ] = None,
    skip: Annotated[int | None, typer.Option(help="The paper's rule: how many layers to skip.")] = None,
    cost: Annotated[
        float | None,
        typer.Option(help="Prefill cost of the linear layers relative to dense ones, in (0, 1)."),
    ] = None,
    text: TextOption = None,
    pattern: Annotated[
        list[str],
        typer.Option(
            help="With --cost: what to choose from; repeat for more. [default: 2:4, and with --cost all that run "
            "on 2:4 hardware]"
        ),
    ] = [],
    score: Annotated[str, typer.Option(help="magnitude, wanda or robust_norm.")] = "robust_norm",
    target: Annotated[
        list[str],
        typer.Option(
            help="Projection that may be pruned; repeat for more. [default: q_proj, gate_proj and down_proj, and "
            "with --cost all]"
        ),
    ] = [],
    rescale: RescaleOption = "none",
    tokens: TokensOption = 4096,
    window: WindowOption = WINDOW,
    out: Annotated[Path | None, typer.Option(help="Write the AmberConfig to this JSON file.")] = None,
    as_json: JsonOption = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="With --cost: write the frontier to this PNG file.")
    ] = None,
) -> None:
    """What to prune: by the paper's rule (--coverage or --skip), or for a wanted cost (--cost)."""
    from amber_ext.layers import find_linears
    from amber_ext.planner import PATTERNS, plan_for_cost
    from amber_ext.planner import plan as make_plan
    from amber_ext.plots import plot_frontier
    from amber_ext.sensitivity import planned_coverage

    if cost is None and (len(pattern) > 1 or plot is not None):
        raise ValueError("pattern, plot: several patterns and the frontier need --cost")
    loaded = load(model)
    targets = tuple(target) or DEFAULT_TARGETS
    if cost is not None and not target:
        targets = tuple(dict.fromkeys(site.projection for site in find_linears(loaded.model)))
    config = AmberConfig(
        pattern=pattern[0] if pattern else "2:4", score=score, targets=targets, rescale=rescale
    )
    batches = [ids[None] for ids in text_tokens(loaded, text, tokens).split(window)]
    details = {}
    if cost is not None and coverage is None and skip is None:
        found = plan_for_cost(
            loaded.model, batches, cost, config, patterns=pattern or PATTERNS, progress=True
        )
        planned = found.config
        details = {"cost": found.cost, "predicted_loss": found.predicted_loss, "measured": found.measured}
        if plot:
            plot_frontier(found, plot)
    else:
        planned = make_plan(
            loaded.model, batches, config, coverage=coverage, skip=skip, cost=cost, progress=True
        )
    reached = planned_coverage(find_linears(loaded.model), planned)
    if out:
        planned.save(out)
    if as_json:
        return print_json({"config": planned.to_dict(), "coverage": reached, **details})
    console.print(plan_table(planned, find_linears(loaded.model), reached))
    if details:
        console.print(
            f"Cost {details['cost']:.4f} of dense. Loss on the text, nats per token:", highlight=False
        )
        for name, loss in details["measured"].items():
            console.print(f"  {name}: {loss:.4f}", highlight=False)


@app.command()
def quantize(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="Folder for the quantised model.")],
    text: TextOption = None,
    pattern: Annotated[str, typer.Option(help="N:M, 10:16w or 12:16w, of the pruned projections.")] = "2:4",
    score: Annotated[str, typer.Option(help="magnitude, wanda or robust_norm.")] = "robust_norm",
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
    as_json: JsonOption = False,
) -> None:
    """Quantise a model to W8A8 with pruned prefill (Outstanding-sparse), and save it."""
    from amber_ext.quantize import quantize_

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
    loaded = load(model)
    batches = [ids[None] for ids in text_tokens(loaded, text, tokens).split(window)]
    report = quantize_(loaded.model, wanted, batches, progress=True)
    save_quantized(loaded.model, out, loaded.tokenizer)
    if as_json:
        return print_json(report.to_dict())
    console.print(str(report), highlight=False)
    console.print(f"Wrote {out}", highlight=False)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the plot and the JSON results.")] = Path("demo_out"),
    tokens: TokensOption = 8192,
) -> None:
    """SmolLM2-135M-Instruct: dense against pruned and quantised, perplexity and a greedy answer."""
    from amber_ext.demo import run_demo

    run_demo(out, tokens, console, messages)


def main() -> None:
    """Runs the tool; errors of ours are one line on stderr and exit code 1."""
    try:
        app(standalone_mode=True)
    except (ValueError, TypeError, RuntimeError) as error:
        messages.print(f"amber-ext: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
