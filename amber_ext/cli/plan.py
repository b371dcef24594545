"""``amber-ext plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amber_ext.cli.options import (
    JsonOption,
    ModelArgument,
    ScoreOption,
    TextOption,
    TokensOption,
    WindowOption,
    console,
    load,
    print_json,
    text_tokens,
)
from amber_ext.cli.tables import plan_table
from amber_ext.config import DEFAULT_TARGETS, AmberConfig, OutstandingSparseConfig
from amber_ext.files import check_file
from amber_ext.perplexity import WINDOW


def run(
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
    allocator: Annotated[
        str,
        typer.Option(
            help="With --cost: fisher (losses predicted), teal (block errors) or acttail (tails of spectra)."
        ),
    ] = "fisher",
    score: ScoreOption = "robust_norm",
    target: Annotated[
        list[str],
        typer.Option(
            help="Projection that may be pruned; repeat for more. [default: q_proj, gate_proj and down_proj, and "
            "with --cost all]"
        ),
    ] = [],
    rescale: Annotated[
        str | None,
        typer.Option(help="none or variance. [default: none, and with --quantization-loss variance]"),
    ] = None,
    quantization_loss: Annotated[
        float | None,
        typer.Option(
            help="Plan for W8A8: leave as many projections unquantised that the others cost this at most, in nats per "
            "token. Alone or with one of the targets above."
        ),
    ] = None,
    tokens: TokensOption = 4096,
    window: WindowOption = WINDOW,
    out: Annotated[Path | None, typer.Option(help="Write the AmberConfig to this JSON file.")] = None,
    as_json: JsonOption = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            help="With --cost: write the frontier to this file, as PNG unless its name ends otherwise.",
        ),
    ] = None,
) -> None:
    """What to prune: by the paper's rule (--coverage or --skip), or for a wanted cost (--cost); and what to quantise."""
    from amber_ext.evaluation.plots import check_plot, plot_frontier
    from amber_ext.layers.sites import find_linears
    from amber_ext.ops.checks import one_of
    from amber_ext.planning.paper_rule import planned_coverage
    from amber_ext.planning.planner import ALLOCATORS, PATTERNS, plan, plan_for_cost
    from amber_ext.planning.quantization_rule import plan_unquantized

    one_of("allocator", allocator, ALLOCATORS)
    if cost is None and (len(pattern) > 1 or plot is not None or allocator != "fisher"):
        raise ValueError(
            "pattern, allocator, plot: several patterns, allocators and the frontier need --cost"
        )
    if plot is not None and allocator != "fisher":
        raise ValueError(f"plot: {allocator!r} has no frontier to draw; it needs --allocator fisher")
    if out:
        check_file("out", out)
    if plot:
        check_plot("plot", plot)
    loaded = load(model)
    targets = tuple(target) or DEFAULT_TARGETS
    if cost is not None and not target:
        targets = tuple(dict.fromkeys(site.projection for site in find_linears(loaded.model)))
    quantizes = quantization_loss is not None
    config = (OutstandingSparseConfig if quantizes else AmberConfig)(
        pattern=pattern[0] if pattern else "2:4",
        score=score,
        targets=targets,
        rescale=rescale or ("variance" if quantizes else "none"),
    )
    batches = [ids[None] for ids in text_tokens(loaded, text, tokens).split(window)]
    details = {}
    targeted = sum(target is not None for target in (coverage, skip, cost))
    if quantizes and targeted < 2:
        config = plan_unquantized(loaded.model, batches, config, quantization_loss, progress=True)
    if quantizes and targeted == 0:
        planned = config
    elif cost is not None and targeted == 1:
        found = plan_for_cost(
            loaded.model,
            batches,
            cost,
            config,
            patterns=pattern or PATTERNS,
            allocator=allocator,
            progress=True,
        )
        planned = found.config
        details = {"cost": found.cost, "predicted_loss": found.predicted_loss, "measured": found.measured}
        if plot:
            plot_frontier(found, plot)
    else:
        planned = plan(loaded.model, batches, config, coverage=coverage, skip=skip, cost=cost, progress=True)
    reached = planned_coverage(find_linears(loaded.model), planned)
    if out:
        planned.save(out)
    if as_json:
        return print_json({"config": planned.to_dict(), "coverage": reached, **details})
    console.print(plan_table(planned, find_linears(loaded.model), reached))
    for projection, layers in planned.unquantized.items() if quantizes else ():
        console.print(
            f"{projection} left unquantised in layers {', '.join(map(str, layers))}", highlight=False
        )
    if details:
        console.print(
            f"Cost {details['cost']:.4f} of dense. Loss on the text, nats per token:", highlight=False
        )
        for name, loss in details["measured"].items():
            console.print(f"  {name}: {loss:.4f}", highlight=False)
