"""The tables of evidence_*.json: the paper's steps and its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from environment import RESULTS, load, markdown, percent

# What the steps are called in the paper.
STEPS = {
    "naive": "naive",
    "layer_skip": "+ layer skip",
    "robust_norm_skips": "+ robust norm",
    "outstanding": "Outstanding-sparse",
}


def of_results(*names: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """A table of these results files; it says so where one of them is not there."""

    def decorate(table: Callable[[], str]) -> Callable[[], str]:
        @wraps(table)
        def printed() -> str:
            missing = [name for name in names if not (RESULTS / f"{name}.json").exists()]
            if missing:
                return f"*Not measured:* no `{missing[0]}.json` is in `benchmarks/results/` yet."
            return table()

        return printed

    return decorate


@of_results("published", "evidence_ladder")
def published() -> str:
    """What the paper reports, of its models, beside what its steps do to the perplexity of ours."""
    paper, ours = load("published"), load("evidence_ladder")
    found = {(row["method"], row["pattern"]): _perplexity(row) for row in ours["rows"]}
    dense = found["dense", ""]
    rows = []
    for row in paper["rows"]:
        value = found[row["method"], row["pattern"]]
        changes = ["" if change is None else f"{change:+.1f}" for change in row["changes"]]
        rows.append([STEPS[row["method"]], row["pattern"], *changes, f"{value:.2f}", f"{value / dense:.2f}×"])
    gsm8k = ", ".join(
        f"{change:+.1f} ({model})"
        for model, change in zip(paper["models"], paper["gsm8k"], strict=True)
        if change is not None
    )
    caption = (
        f"Of other models: {paper['what']}, as {paper['source']} reports it (`benchmarks/results/published.json`); GSM8K "
        f"changes by {gsm8k} there. The last two columns are ours, another measure of another model: perplexity of "
        f"{_setting(ours)}, dense {dense:.2f} (`benchmarks/results/evidence_ladder.json`):"
    )
    return (
        caption
        + "\n\n"
        + markdown(["step", "pattern", *paper["models"], "perplexity here", "of dense"], rows)
    )


@of_results("evidence_ladder")
def ladder() -> str:
    return _by_pattern("ladder")


@of_results("evidence_neighbours")
def neighbours() -> str:
    return _by_pattern("neighbours")


@of_results("evidence_folding_choice")
def folding() -> str:
    """How often the choice differs."""
    choice = load("evidence_folding_choice")
    settings = choice["settings"]
    rows = [
        [
            row["dtype"],
            row["pattern"],
            percent(row["differ"]["magnitude"], 2),
            percent(row["differ"]["folded"], 2),
        ]
        for row in choice["rows"]
    ]
    caption = (
        f"Of the entries that robust norm keeps in the inputs of q and gate ({choice['text']}, first {settings['tokens']:,} "
        "tokens, every layer), the share that magnitudes drop (`benchmarks/results/evidence_folding_choice.json`):"
    )
    header = ["dtype", "pattern", "plain magnitudes", "magnitudes after the fold"]
    return caption + "\n\n" + markdown(header, rows)


@of_results("evidence_weight_masks")
def weight_masks() -> str:
    return _by_pattern("weight_masks")


@of_results("evidence_allocators")
def allocators() -> str:
    data = load("evidence_allocators")
    settings = data["settings"]
    rows = []
    for row in data["rows"]:
        allocator, _, point = row["method"].partition(", ")
        cells = [point, percent(row["coverage"]), f"{row['cost']:.3f}", f"{_perplexity(row):.2f}"]
        rows.append([allocator, *cells])
    caption = (
        f"{_setting(data)}; planned on {settings['calibration_tokens']:,} tokens of {data['calibration']}, each allocator's own "
        "plan over all seven projections; cost is the bound relative to dense "
        "(`benchmarks/results/evidence_allocators.json`):"
    )
    return caption + "\n\n" + markdown(["allocator", "patterns", "coverage", "cost", "perplexity"], rows)


def _by_pattern(group: str) -> str:
    """Methods by patterns."""
    data = load(f"evidence_{group}")
    patterns = list(dict.fromkeys(row["pattern"] for row in data["rows"] if row["pattern"]))
    by_method: dict[str, dict[str, dict]] = {}
    for row in data["rows"]:
        by_method.setdefault(row["method"], {})[row["pattern"]] = row
    rows = []
    for method, found in by_method.items():
        values = [f"{_perplexity(found[p]):.2f}" if p in found else "" for p in ("", *patterns)]
        rows.append([f"`{method}`", percent(next(iter(found.values()))["coverage"]), *values])
    calibrated = f"calibrated on {data['settings']['calibration_tokens']:,} tokens of {data['calibration']}"
    caption = f"Perplexity of {_setting(data)}; {calibrated} (`benchmarks/results/evidence_{group}.json`):"
    return caption + "\n\n" + markdown(["method", "coverage", "no pattern", *patterns], rows)


def _perplexity(row: dict) -> float:
    return row["cells"]["perplexity"]["value"]


def _setting(data: dict) -> str:
    settings = data["settings"]
    return (
        f"{data['model']}, {data['text']}, first {settings['tokens']:,} tokens, windows of {settings['window']}, every token "
        "prefilled"
    )


TABLES = (published, ladder, neighbours, folding, weight_masks, allocators)
