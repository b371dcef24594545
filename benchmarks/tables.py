"""The tables of the pages, as Markdown: each function is one block, named as in the pages (`report.py`)."""

from __future__ import annotations

import kernel_counts
from cpu import fused_table
from environment import load, markdown, percent
from evidence.table import TABLES as EVIDENCE
from gpu.table import gpu, measured_speedups
from predictions import layer_bytes
from predictions.table import predicted, public_ratios
from serving.table import vllm

from amber_ext import Pattern
from amber_ext.evaluation.table import table_cells
from amber_ext.families import FAMILIES
from amber_ext.ops.pattern import extra_windows

PATTERNS = ("2:4", "10:16w", "12:16w", "4:8", "8:16")


def patterns() -> str:
    """What each pattern that runs on 2:4 hardware costs and keeps."""
    data = load("perplexity")
    perplexities = {
        row["pattern"]: row["perplexity"] for row in data["rows"] if row["method"] == "robust_norm"
    }
    measured = measured_speedups()
    rows = []
    for text in PATTERNS:
        pattern = Pattern(text)
        widened = 1 + extra_windows(pattern) / 4
        speeds = [measured.get(name, "not measured") for name in (text, f"int8 {text}")]
        memory, bound = percent(widened - 1, 0), f"{2 / widened:.2f}×"
        rows.append([text, percent(pattern.density), memory, bound, *speeds, f"{perplexities[text]:.2f}"])
    header = ["pattern", "survivors", "more weight memory", "bound on speed-up"]
    header += ["measured, 16-bit", "measured, int8", "perplexity"]
    caption = (
        f"Perplexity: {data['model']}, {data['text']}, first {data['tokens']:,} tokens, robust-norm on q, gate and "
        f"down; not pruned {data['dense']:.2f} (`benchmarks/results/perplexity.json`). The bound is that of the "
        "product alone, over dense of the same dtype:"
    )
    return caption + "\n\n" + markdown(header, rows)


def families() -> str:
    """What works with which models: `amber_ext.families`, and what holds for every other model."""
    rows = []
    for family in FAMILIES:
        norms = "no: applied on the fly"
        if family.decoder_layer:
            norms = "attention's" if family.experts else "attention's and MLP's"
        experts = f"fused (`{family.experts}`): by magnitude" if family.experts else "none"
        presets = ", ".join(f"`{name}`" for name in family.presets or {})
        rows.append([family.name, "yes", norms, experts, presets, family.vllm])
    others = [
        "any other with `nn.Linear`",
        "yes",
        "where its layers are built like Llama's",
        "one `nn.Linear` each: by magnitude; fused: refused",
        "",
        "not tested",
    ]
    header = ["models", "pruned", "smoothing folded into norms", "pruned experts", "the paper's skips"]
    return markdown([*header, "tested in vLLM"], [*rows, others])


def perplexity() -> str:
    data = load("perplexity")
    names = ["2:4", "4:8", "8:16", "10:16w", "12:16w"]
    by_method: dict[str, dict[str, dict]] = {}
    for row in data["rows"]:
        by_method.setdefault(row["method"], {})[row["pattern"]] = row
    rows = [["dense", "0 %", *[f"{data['dense']:.2f}"] * len(names)]]
    for method, found in by_method.items():
        coverage = next(iter(found.values()))["coverage"]
        cells = [f"{found[p]['perplexity']:.2f}" if p in found else "" for p in names]
        rows.append([method, percent(coverage), *cells])
    caption = (
        f"{data['model']}, {data['text']}, first {data['tokens']:,} tokens, windows of {data['window']}, "
        "every token prefilled (`benchmarks/results/perplexity.json`):"
    )
    return caption + "\n\n" + markdown(["method", "coverage", *names], rows)


def w8a8() -> str:
    data = load("w8a8")
    names = ["dense", "2:4", "4:8", "8:16"]
    directions = {
        "none": "none",
        "smoothquant": "SmoothQuant, α = 0.5",
        "outstanding": "the paper's inverse, α = 0.10",
    }
    cells: dict[tuple[str, str], dict[str, float]] = {}
    for row in data["rows"]:
        cells.setdefault((row["direction"], row["method"]), {})[row["pattern"]] = row["perplexity"]
    rows = [["not quantised", "not pruned", f"{data['dense']:.2f}", "", "", ""]]
    for (direction, method), found in cells.items():
        values = [f"{found[p]:.2f}" if p in found else "" for p in names]
        rows.append([directions[direction], method, *values])
    caption = (
        f"{data['model']}, all linear layers in int8, {data['text']}, first {data['tokens']:,} tokens, windows of "
        f"{data['window']}, every token prefilled; calibrated on the next {data['calibration_tokens']:,} "
        "(`benchmarks/results/w8a8.json`):"
    )
    return caption + "\n\n" + markdown(["smoothing", "score", *names], rows)


def planner() -> str:
    data = load("planner")
    rows = [["dense", "0 %", "1.000", f"{data['dense']:.2f}"]]
    for row in data["rows"]:
        rows.append(
            [row["method"], percent(row["coverage"]), f"{row['cost']:.3f}", f"{row['perplexity']:.2f}"]
        )
    caption = (
        f"{data['model']}, planned on {data['calibration']}, scored on {data['text']}, first {data['tokens']:,} tokens, "
        f"windows of {data['window']}; cost is the bound for all linear layers in prefill relative to dense "
        "(`benchmarks/results/planner.json`):"
    )
    return caption + "\n\n" + markdown(["method", "coverage", "cost", "perplexity"], rows)


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


def cpu() -> str:
    data = load("cpu")
    shape, environment = data["shape"], data["environment"]
    rows = []
    for row in data["rows"]:
        speeds = [f"{row['nm_prune_ms']:.1f} ms", f"{row['prune_speedup']:.0f}×"]
        rows.append([row["pattern"], row["rescale"], *speeds, f"{row['linear_over_dense']:.2f}×"])
    caption = (
        f"bf16, X [{shape['T']}, {shape['K']}], W [{shape['N']}, {shape['K']}], {environment['threads']} threads of "
        f"an {environment['cpu']} ({environment['cpu_capability']}); robust-norm scores of a [4096, 14336] weight "
        f"take {data['robust_norm_s']:.1f} s (`benchmarks/results/cpu.json`):"
    )
    header = ["pattern", "rescale", "`nm_prune`", "faster than the reference", "`linear` / `F.linear`"]
    return caption + "\n\n" + markdown(header, rows)


def cpu_w8a8() -> str:
    """W8A8 layers over bf16 `F.linear` in the same run."""
    data = load("cpu_w8a8")
    environment, rows = data["environment"], []
    for row in data["rows"]:
        dense = row["dense_ms"]
        shape = f"{row['shape']} [{row['out_features']}, {row['in_features']}]"
        ratios = [f"{row[f'{key}_ms'] / dense:.2f}×" for key in ("w8a8", "pruned_w8a8", "torchs_w8a8")]
        rows.append([shape, str(row["tokens"]), f"{dense:.1f} ms", *ratios])
    caption = (
        f"Time of a whole W8A8 layer over that of bf16 `F.linear`, {environment['threads']} threads of an "
        f"{environment['cpu']}, {data['product']} (`benchmarks/results/cpu_w8a8.json`):"
    )
    header = ["W", "T", "bf16", "W8A8", f"W8A8, {data['pattern']}", "W8A8 with `torch._int_mm`"]
    return caption + "\n\n" + markdown(header, rows)


def selection_counts() -> str:
    return markdown(*kernel_counts.selection_table(load("kernel_counts")["rows"]))


def gemm_counts() -> str:
    return markdown(*kernel_counts.gemm_table(load("kernel_counts")["rows"]))


def architectures() -> str:
    """Small models of many architectures; those with the same cells share a row."""
    data, groups = load("architectures"), {}
    for row in data["rows"]:
        saved = [
            {"yes": "yes", "the dense model does not come back either": "nor when dense"}.get(row[key], "no")
            for key in ("save and load", "save and load quantized")
            if key in row
        ]
        quantized = "no" if "quantized phases" not in row else row["quantize"].partition(":")[0]
        quantized = "it does not run" if "Error" in row.get("quantized phases", "") else quantized
        right = [way for way, text in row.get("phases", {}).items() if text and "[" not in text]
        none = row["pruned"].startswith("0 ") if row["sparsify"] == "yes" else None
        sparsified = {None: "refused", True: "no layer can be", False: "yes"}[none]
        quantized, saved = (sparsified, []) if none else (quantized, saved)
        cells = (sparsified, quantized, " / ".join(saved) or "none")
        key = (row["kind"], *cells, "all" if len(right) == 7 else ", ".join(right) or "none")
        groups.setdefault(key, []).append(row["name"])
    rows = [[kind, ", ".join(names), *cells] for (kind, *cells), names in groups.items()]
    texts = [text for row in data["rows"] for text in row.get("phases", {}).values() if text]
    ways, wrong = len(texts), sum("[" in text for text in texts)
    caption = (
        f"{len(data['rows'])} small models of random weights, transformers {data['transformers']} "
        f"(`benchmarks/results/architectures.json`). {ways - wrong} of {ways} ways to run them have every row of every "
        "call in the right phase; what is not named transformers does not run, pruned or not:"
    )
    header = ["kind", "models", "pruned", "8 bits", "saved and loaded, pruned / 8 bits"]
    return caption + "\n\n" + markdown([*header, "right phases in"], rows)


TABLES = {
    table.__name__: table
    for table in (
        *(patterns, families, perplexity, w8a8, planner, eval_smollm2, eval_tinyllama, cpu, cpu_w8a8, gpu),
        *(selection_counts, gemm_counts, architectures, predicted, public_ratios, vllm),
        *EVIDENCE,
    )
} | {"layer_bytes": layer_bytes.table, "cpu_fused": fused_table}
