"""The command line tool's plots, written to PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from amber_ext.sensitivity import LayerSensitivity


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
    figure.savefig(path, dpi=150)


def plot_perplexity(rows: Sequence[dict[str, object]], dense: float, path: str | Path) -> None:
    """Perplexity by pattern, one bar per method; ``rows`` have method, pattern and perplexity."""
    figure, axes = _figure(7, 4.5)
    patterns = list(dict.fromkeys(row["pattern"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    width = 0.8 / len(methods)
    for i, method in enumerate(methods):
        values = {row["pattern"]: row["perplexity"] for row in rows if row["method"] == method}
        at = [patterns.index(p) + (i - (len(methods) - 1) / 2) * width for p in values]
        bars = axes.bar(at, list(values.values()), width, label=method)
        axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.axhline(dense, color="black", linestyle="--", linewidth=1, label=f"dense ({dense:.2f})")
    axes.set_xticks(range(len(patterns)), patterns)
    axes.set_xlabel("pattern")
    axes.set_ylabel("perplexity (lower is better)")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=150)
