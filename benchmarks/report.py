"""Prints the tables of the README and of docs/ from the results files, and the plots beside them.

``report.py`` rewrites the blocks of these files between ``<!-- results: NAME -->`` and ``<!-- end -->``;
``report.py --check`` fails when one is not what the results files say.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from environment import RESULTS, ROOT

from amber_ext import Pattern
from amber_ext.evaluation.table import table_cells
from amber_ext.ops.pattern import extra_windows

PAGES = (ROOT / "README.md", ROOT / "docs" / "choosing_a_pattern.md")
NOT_MEASURED = "*Not measured:* no results file of a GPU is in `benchmarks/results/` yet."


def load(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def perplexity() -> str:
    data = load("perplexity")
    patterns = ["2:4", "4:8", "8:16", "10:16w", "12:16w"]
    by_method: dict[str, dict[str, dict]] = {}
    for row in data["rows"]:
        by_method.setdefault(row["method"], {})[row["pattern"]] = row
    rows = [["dense", "0 %", *[f"{data['dense']:.2f}"] * len(patterns)]]
    for method, found in by_method.items():
        coverage = next(iter(found.values()))["coverage"]
        cells = [f"{found[p]['perplexity']:.2f}" if p in found else "" for p in patterns]
        rows.append([method, f"{coverage:.1%}".replace("%", " %"), *cells])
    caption = (
        f"{data['model']}, {data['text']}, first {data['tokens']:,} tokens, windows of {data['window']}, "
        "every token prefilled (`benchmarks/results/perplexity.json`):"
    )
    return caption + "\n\n" + markdown(["method", "coverage", *patterns], rows)


def w8a8() -> str:
    data = load("w8a8")
    patterns = ["dense", "2:4", "4:8", "8:16"]
    names = {
        "none": "none",
        "smoothquant": "SmoothQuant, α = 0.5",
        "outstanding": "the paper's inverse, α = 0.10",
    }
    cells: dict[tuple[str, str], dict[str, float]] = {}
    for row in data["rows"]:
        cells.setdefault((row["direction"], row["method"]), {})[row["pattern"]] = row["perplexity"]
    rows = [["not quantised", "not pruned", f"{data['dense']:.2f}", "", "", ""]]
    for (direction, method), found in cells.items():
        values = [f"{found[p]:.2f}" if p in found else "" for p in patterns]
        rows.append([names[direction], method, *values])
    caption = (
        f"{data['model']}, all linear layers in int8, {data['text']}, first {data['tokens']:,} tokens, windows of "
        f"{data['window']}, every token prefilled; calibrated on the next {data['calibration_tokens']:,} "
        "(`benchmarks/results/w8a8.json`):"
    )
    return caption + "\n\n" + markdown(["smoothing", "score", *patterns], rows)


def cpu() -> str:
    data = load("cpu")
    shape, environment = data["shape"], data["environment"]
    rows = [
        [
            row["pattern"],
            row["rescale"],
            f"{row['nm_prune_ms']:.1f} ms",
            f"{row['prune_speedup']:.0f}×",
            f"{row['linear_over_dense']:.2f}×",
        ]
        for row in data["rows"]
    ]
    caption = (
        f"bf16, X [{shape['T']}, {shape['K']}], W [{shape['N']}, {shape['K']}], {environment['threads']} threads of "
        f"an {environment['cpu']} ({environment['cpu_capability']}); robust-norm scores of a [4096, 14336] weight "
        f"take {data['robust_norm_s']:.1f} s (`benchmarks/results/cpu.json`):"
    )
    header = [
        "pattern",
        "rescale",
        "`nm_prune`",
        "faster than the reference",
        "`linear` / `F.linear`",
    ]
    return caption + "\n\n" + markdown(header, rows)


def evaluation(name: str) -> str:
    data = load(f"eval_{name}")
    settings = data["settings"]
    caption = (
        f"{data['model']}: zero-shot, the first {settings['limit']} documents of each task, in percent with standard "
        f"errors; WikiText-2, first {settings['tokens']:,} tokens, windows of {settings['window']}; calibrated on "
        f"{settings['calibration_tokens']:,} tokens of C4; robust_norm_skips leaves {settings['skip']} layers' q and "
        f"gate dense (`benchmarks/results/eval_{name}.json`):"
    )
    header, body = table_cells(data["rows"])
    return caption + "\n\n" + markdown(header, body)


def eval_smollm2() -> str:
    return evaluation("smollm2")


def eval_tinyllama() -> str:
    return evaluation("tinyllama")


def planner() -> str:
    data = load("planner")
    rows = [["dense", "0 %", "1.000", f"{data['dense']:.2f}"]]
    for row in data["rows"]:
        coverage = f"{row['coverage']:.1%}".replace("%", " %")
        rows.append([row["method"], coverage, f"{row['cost']:.3f}", f"{row['perplexity']:.2f}"])
    caption = (
        f"{data['model']}, planned on {data['calibration']}, scored on {data['text']}, first {data['tokens']:,} tokens, "
        f"windows of {data['window']}; cost is the bound for all linear layers in prefill relative to dense "
        "(`benchmarks/results/planner.json`):"
    )
    return caption + "\n\n" + markdown(["method", "coverage", "cost", "perplexity"], rows)


def patterns() -> str:
    """What each pattern that runs on 2:4 hardware costs and keeps."""
    data = load("perplexity")
    perplexities = {
        row["pattern"]: row["perplexity"] for row in data["rows"] if row["method"] == "robust_norm"
    }
    measured = measured_speedups()
    rows = []
    for text in ("2:4", "10:16w", "12:16w", "4:8", "8:16"):
        pattern = Pattern(text)
        widened = 1 + extra_windows(pattern) / 4
        rows.append(
            [
                text,
                f"{pattern.density:.1%}".replace("%", " %"),
                f"{widened - 1:.0%}".replace("%", " %"),
                f"{2 / widened:.2f}×",
                *(measured.get(name, "not measured") for name in (text, f"int8 {text}")),
                f"{perplexities[text]:.2f}",
            ]
        )
    header = [
        "pattern",
        "survivors",
        "more weight memory",
        "bound on speed-up",
        "measured, 16-bit",
        "measured, int8",
        "perplexity",
    ]
    caption = (
        f"Perplexity: {data['model']}, {data['text']}, first {data['tokens']:,} tokens, robust-norm on q, gate and "
        f"down; not pruned {data['dense']:.2f} (`benchmarks/results/perplexity.json`). The bound is that of the "
        "product alone, over dense of the same dtype:"
    )
    return caption + "\n\n" + markdown(header, rows)


def measured_speedups() -> dict[str, str]:
    """Pattern to its range over Llama's gate and down at T = 8192, compress included, over dense."""
    ratios: dict[str, list[float]] = {}
    for path in RESULTS.glob("gpu_*.json"):
        for row in json.loads(path.read_text())["patterns"]:
            if row["tokens"] != 8192:
                continue
            ms = {name: time["median"] for name, time in row["ms"].items()}
            for name, time in ms.items():
                dense = ms["int8_dense_linear" if name.startswith("int8") else "cublas"]
                ratios.setdefault(name, []).append(dense / time)
    return {name: f"{min(values):.2f} to {max(values):.2f}×" for name, values in ratios.items()}


def gpu() -> str:
    files = sorted(RESULTS.glob("gpu_*.json"))
    if not files:
        return NOT_MEASURED
    parts = []
    for path in files:
        data = json.loads(path.read_text())
        rows = []
        for row in data["rows"]:
            ms = {name: time["median"] for name, time in row["ms"].items()}
            sparselt = (
                f"{ms['cublas'] / ms['cusparselt_gemm']:.2f}×" if "cusparselt_gemm" in ms else "not measured"
            )
            ratios = [
                f"{ms['cublas'] / ms[name]:.2f}×"
                for name in (
                    "amber_linear",
                    "int8_dense_linear",
                    "int8_amber_linear",
                    "e4m3_dense_linear",
                    "e4m3_amber_linear",
                )
            ]
            rows.append([row["shape"], str(row["tokens"]), f"{ms['cublas']:.3f} ms", *ratios, sparselt])
        header = [
            "shape",
            "T",
            "cuBLAS",
            "2:4, compress included",
            "int8 dense, quantise included",
            "int8 2:4, all included",
            "e4m3 dense, quantise included",
            "e4m3 2:4, all included",
            "cuSPARSELt 2:4, GEMM alone",
        ]
        caption = (
            f"{data['device']['name']}, {data['dtype']}, {data['pattern']} (`{path.relative_to(ROOT)}`):"
        )
        parts.append(caption + "\n\n" + markdown(header, rows))
        plot_gpu(data, path.with_suffix(".png"))
    return "\n\n".join(parts)


def plot_gpu(data: dict, path: Path) -> None:
    """Speed-up over cuBLAS against T, one line a shape."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="tokens T", ylabel="speed-up over cuBLAS")
    for shape in dict.fromkeys(row["shape"] for row in data["rows"]):
        points = [
            (row["tokens"], row["ms"]["cublas"]["median"] / row["ms"]["amber_linear"]["median"])
            for row in data["rows"]
            if row["shape"] == shape
        ]
        axes.plot(*zip(*points, strict=True), marker="o", label=shape)
    axes.axhline(1, color="black", linewidth=1, linestyle="--")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def render(text: str) -> str:
    """A page with every block written anew."""
    makers = (patterns, perplexity, w8a8, cpu, gpu, eval_smollm2, eval_tinyllama, planner)
    blocks = {maker.__name__: maker for maker in makers}

    def block(match: re.Match) -> str:
        return f"<!-- results: {match[1]} -->\n{blocks[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- results: (\w+) -->\n.*?<!-- end -->", block, text, flags=re.DOTALL)


def main() -> None:
    check = "--check" in sys.argv[1:]
    for page in PAGES:
        text = page.read_text()
        rendered = render(text)
        if check and rendered != text:
            sys.exit(f"{page.name} is not what benchmarks/results says; run benchmarks/report.py")
        if not check:
            page.write_text(rendered)


if __name__ == "__main__":
    main()
