"""The figures of the pages, drawn from the results files.

Each PNG says in its metadata which data it was drawn from, so that `report.py --check` can tell whether it still is
what the results files say, whatever version of matplotlib drew it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from environment import RESULTS, ROOT
from gpu.table import results

from amber_ext import Pattern
from amber_ext.planning.cost_model import bound

QUALITY_AGAINST_COST = ROOT / "docs" / "quality_against_cost.png"
DATA_KEY = "Amber results"

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"


def quality_against_cost() -> dict[str, object]:
    """The points of the figure: cost relative to dense, and perplexity."""
    perplexity = json.loads((RESULTS / "perplexity.json").read_text())
    planner = json.loads((RESULTS / "planner.json").read_text())
    uniform = {
        row["pattern"]: (1 - row["coverage"] * (1 - bound(Pattern(row["pattern"]))), row["perplexity"])
        for row in perplexity["rows"]
        if row["method"] == "robust_norm"
    }
    planned = {row["method"]: (row["cost"], row["perplexity"]) for row in planner["rows"]}
    return {
        "model": perplexity["model"].partition(" (")[0],
        "text": perplexity["text"],
        "dense": perplexity["dense"],
        "uniform": uniform,
        "paper": planned["the paper's rule"],
        "planned": {name: planned[name] for name in ("planned, 2:4 only", "planned, all patterns")},
    }


def draw_quality_against_cost(data: dict[str, object], path: Path) -> None:
    """What each pattern keeps of the model's quality at the cost that it may reach."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.axhline(data["dense"], color="black", linestyle="--", linewidth=1)
    axes.text(0.998, data["dense"] + 0.25, "dense", ha="right", va="bottom")

    windowed = {name: point for name, point in data["uniform"].items() if Pattern(name).windowed}
    exact = {name: point for name, point in data["uniform"].items() if name not in windowed}
    groups = (
        ("N:M on q, gate and down", exact, BLUE, "o"),
        ("windowed, on q, gate and down", windowed, GREEN, "s"),
        ("the paper's rule, 2:4", {"the paper's rule": data["paper"]}, GREY, "D"),
        ("planned layer by layer", data["planned"], ORANGE, "*"),
    )
    for label, points, colour, marker in groups:
        size = 170 if marker == "*" else 60
        axes.scatter(
            *zip(*points.values(), strict=True), s=size, c=colour, marker=marker, label=label, zorder=3
        )
        for name, (cost, perplexity) in points.items():
            axes.annotate(
                name.removeprefix("planned, "),
                (cost, perplexity),
                xytext=(-10 if marker == "*" else 9, 3),
                textcoords="offset points",
                ha="right" if marker == "*" else "left",  # a pattern's own point may be beside it
                color=colour,
            )
    axes.set_xlim(0.66, 1.0)
    axes.set_ylim(23, 41)
    axes.set_xlabel("cost of the linear layers in prefill, relative to dense (a bound, not measured)")
    axes.set_ylabel("perplexity (lower is better)")
    axes.set_title(f"{data['model']}, {data['text']}", fontsize=11)
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(path, dpi=150, metadata={DATA_KEY: fingerprint(data)})


def draw_gpu(data: dict, path: Path) -> None:
    """Speed-up over cuBLAS against T, one line a shape."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="tokens T", ylabel="speed-up over cuBLAS")
    for shape in dict.fromkeys(row["shape"] for row in data["layer"]):
        points = [
            (row["tokens"], row["ms"]["cublas"]["median"] / row["ms"]["amber_linear"]["median"])
            for row in data["layer"]
            if row["shape"] == shape and "amber_linear" in row["ms"]
        ]
        axes.plot(*zip(*points, strict=True), marker="o", label=shape)
    axes.axhline(1, color="black", linewidth=1, linestyle="--")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150, metadata={DATA_KEY: fingerprint(data)})


def fingerprint(data: dict) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def figures() -> list[tuple[Path, dict, object]]:
    """Every figure: its file, its data, and what draws it."""
    found = [(QUALITY_AGAINST_COST, quality_against_cost(), draw_quality_against_cost)]
    found += [(path.with_suffix(".png"), kinds, draw_gpu) for path, kinds in results()]
    return found


def is_current(path: Path, data: dict) -> bool:
    """Whether a figure was drawn from these data."""
    from PIL import Image

    if not path.is_file():
        return False
    with Image.open(path) as image:
        return image.info.get(DATA_KEY) == fingerprint(data)
