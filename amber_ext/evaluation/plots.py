"""The command line tool's plots, written to PNG, or what the file's name ends in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from amber_ext.evaluation.table import table_rows
from amber_ext.files import check_file, whole_file
from amber_ext.planning.planner import CostPlan
from amber_ext.planning.sensitivity import LayerSensitivity


def check_plot(argument: str, path: str | Path) -> None:
    """Raises ValueError when no plot can be written to this file; ``argument`` is what the caller calls it."""
    from matplotlib.backend_bases import FigureCanvasBase

    check_file(argument, path)
    formats = FigureCanvasBase.get_supported_filetypes()
    if _format(path) not in formats:
        raise ValueError(
            f"{argument}: {str(path)!r} is not allowed; its name must end in one of: {', '.join(sorted(formats))}"
        )


def _format(path: str | Path) -> str:
    return Path(path).suffix[1:].lower() or "png"


def _save(figure, path: str | Path) -> None:
    with whole_file(path) as part:
        figure.savefig(part, format=_format(path), dpi=150)


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    return figure, axes


def plot_sensitivity(measured: Sequence[LayerSensitivity], pattern: str, path: str | Path) -> None:
    """e_q by layer, one line per projection."""
    figure, axes = _figure(9, 4.5)
    for projection in dict.fromkeys(entry.projection for entry in measured):
        points = [(e.layer, e.error) for e in measured if e.projection == projection and e.layer is not None]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=projection)
    axes.set_xlabel("decoder layer")
    axes.set_ylabel("relative output error $e_q$")
    axes.set_title(f"Sensitivity to {pattern} pruning of the input")
    figure.legend(loc="outside lower center", ncols=7, frameon=False)
    _save(figure, path)


def plot_comparison(rows: Sequence[dict[str, object]], path: str | Path) -> None:
    """Average score (or perplexity, without tasks) by pattern, one mark a method; ``rows`` of `EvalRun.rows`."""
    tasks, lines = table_rows(rows)
    figure, axes = _figure(8, 4.5)
    values = {
        (line.method, line.pattern): (100 * line.average, 100 * (line.average_stderr or 0.0))
        if tasks and line.average is not None
        else (line.perplexity, 0.0)
        for line in lines
        if (value := line.average if tasks else line.perplexity) is not None and math.isfinite(value)
    }
    patterns = list(dict.fromkeys(pattern for method, pattern in values if pattern))
    methods = list(dict.fromkeys(method for method, pattern in values if pattern))
    for i, method in enumerate(methods):
        points = [(patterns.index(p), *values[method, p]) for p in patterns if (method, p) in values]
        at, value, error = zip(*points, strict=True)
        shift = 0.6 * ((i + 0.5) / len(methods) - 0.5)
        axes.errorbar([x + shift for x in at], value, yerr=error if tasks else None, fmt="o", label=method)
    for i, (method, _) in enumerate(key for key in values if not key[1]):
        value = values[method, ""][0]
        axes.axhline(value, color="black", linestyle=("--", ":")[i % 2], linewidth=1, label=method)
    axes.set_xticks(range(len(patterns)), patterns)
    axes.set_xlabel("pattern")
    axes.set_ylabel("average score, % (higher is better)" if tasks else "perplexity (lower is better)")
    if values:
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
    _save(figure, path)


def plot_frontier(plan: CostPlan, path: str | Path) -> None:
    """The least predicted loss at each cost, and where the plan is."""
    figure, axes = _figure(7, 4.5)
    axes.plot([p.cost for p in plan.frontier], [p.loss for p in plan.frontier], label="frontier")
    axes.plot(plan.cost, plan.predicted_loss, "o", label=f"plan: cost {plan.cost:.3f}")
    axes.set_xlabel("cost of linear layers in prefill, relative to dense")
    axes.set_ylabel("predicted rise of the loss, nats per token")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    _save(figure, path)
