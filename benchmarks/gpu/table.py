"""The table of GPU measurements, from gpu_*.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

from environment import RESULTS, ROOT, markdown

COLUMNS = {
    "amber_linear": "2:4, compress included",
    "int8_dense_linear": "int8 dense, quantise included",
    "int8_amber_linear": "int8 2:4, all included",
    "e4m3_dense_linear": "e4m3 dense, quantise included",
    "e4m3_amber_linear": "e4m3 2:4, all included",
    "cusparselt_gemm": "cuSPARSELt 2:4, GEMM alone",
}


def results() -> list[tuple[Path, dict[str, list[dict]]]]:
    """Each GPU's results file, and its rows by kind: one ``run`` that says where and how, ``layer``, ``patterns``, ``failed``."""
    found = []
    for path in sorted(RESULTS.glob("gpu_*.jsonl")):
        kinds: dict[str, list[dict]] = {"layer": [], "patterns": []}
        for line in path.read_text().splitlines():
            row = json.loads(line)
            kinds.setdefault(row["kind"], []).append(row)
        found.append((path, kinds))
    return found


def gpu() -> str:
    """How many times as fast as cuBLAS each variant is, by shape and tokens; a table for each GPU."""
    parts = []
    for path, kinds in results():
        rows, (run,) = [], kinds["run"]
        for row in kinds["layer"]:
            ms = {name: time["median"] for name, time in row["ms"].items()}
            ratios = [f"{ms['cublas'] / ms[name]:.2f}×" if name in ms else "did not run" for name in COLUMNS]
            rows.append([row["shape"], str(row["tokens"]), f"{ms['cublas']:.3f} ms", *ratios])
        caption = f"{run['device']['name']}, {run['dtype']}, {run['pattern']} (`{path.relative_to(ROOT)}`):"
        parts.append(caption + "\n\n" + markdown(["shape", "T", "cuBLAS", *COLUMNS.values()], rows))
    return "\n\n".join(parts) or "*Not measured:* no results file of a GPU is in `benchmarks/results/` yet."


def measured_speedups() -> dict[str, str]:
    """Pattern to its range over Llama's gate and down at T = 8192, compress included, over dense."""
    ratios: dict[str, list[float]] = {}
    for _, kinds in results():
        for row in kinds["patterns"]:
            if row["tokens"] != 8192:
                continue
            ms = {name: time["median"] for name, time in row["ms"].items()}
            for name, time in ms.items():
                dense = ms["int8_dense_linear" if name.startswith("int8") else "cublas"]
                ratios.setdefault(name, []).append(dense / time)
    return {name: f"{min(values):.2f} to {max(values):.2f}×" for name, values in ratios.items()}
