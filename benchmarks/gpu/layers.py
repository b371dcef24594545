"""GPU speed of pruned linear layers against cuBLAS, cuSPARSELt and dense 8-bit, in one run. Writes gpu_<name>.jsonl.

Usage: gpu/layers.py OUT_FOLDER [--tokens 64 ... 16384]

Each row is written when it is measured: what comes later cannot lose it. Medians of CUDA-event timings on random data;
weights and inputs rotate through more memory than L2 holds, and the variants of a row take turns. Up to 512 tokens they are
replayed from CUDA graphs. Each row has every spread (10th to 90th percentile), so that ratios can be judged.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, TextIO

import torch
import typer
from rich.progress import track

sys.path.append(str(Path(__file__).resolve().parents[1]))

import environment  # noqa: E402
from timing import times  # noqa: E402
from variants import Inputs, linear_layers, patterns  # noqa: E402

# (name, N, K) of Llama-3.1-8B and Qwen2-7B.
SHAPES = (
    ("llama q", 4096, 4096),
    ("llama gate", 14336, 4096),
    ("llama down", 4096, 14336),
    ("qwen2 q", 3584, 3584),
    ("qwen2 gate", 18944, 3584),
    ("qwen2 down", 3584, 18944),
)
# Where all patterns are compared.
PATTERN_SHAPES = ("llama gate", "llama down")
PATTERN_TOKENS = (512, 2048, 8192)
TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
REPLAYED = 512  # up to so many tokens
ROTATE_BYTES = 256 << 20


def measure(kind: str, name: str, n: int, k: int, tokens: int) -> dict[str, object]:
    """One row: times in ms by variant, and why the others did not run."""
    copies = min(4, max(1, ROTATE_BYTES // (2 * k * min(n, tokens))))
    make = linear_layers if kind == "layer" else patterns
    found = times(make(Inputs(tokens, n, k, copies)), copies, replay=tokens <= REPLAYED)
    return {
        "kind": kind,
        **{"shape": name, "n": n, "k": k, "tokens": tokens, "replayed": tokens <= REPLAYED},
        "ms": {variant: ms for variant, ms in found.items() if not isinstance(ms, str)},
        "failed": {variant: why for variant, why in found.items() if isinstance(why, str)},
    }


def copy_bandwidth() -> float:
    """GB/s of a large device-to-device copy, bytes read plus bytes written."""
    source = torch.randint(0, 255, (1 << 30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    found = times({"copy": lambda i: target.copy_(source)}, 1, replay=False)["copy"]
    return 2 * source.nbytes / found["median"] * 1e-6


def device_facts() -> dict[str, object]:
    """GPU name, driver and clocks as nvidia-smi gives them, and its architecture."""
    if not torch.cuda.is_available():
        raise SystemExit("layers.py: no GPU that torch can use")
    fields = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw"
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    line = subprocess.run(query, capture_output=True, text=True).stdout.split("\n")[0]
    facts = dict(zip(fields.split(","), (part.strip() for part in line.split(",")), strict=False))
    major, minor = torch.cuda.get_device_capability()
    return {**facts, "name": torch.cuda.get_device_name(), "arch": major * 10 + minor}


def main(
    out: Annotated[Path, typer.Argument(help="Folder for the results file.")],
    tokens: Annotated[list[int] | None, typer.Option(help="Tokens T; repeat. [default: 64 to 16384]")] = None,
) -> None:
    """Measures every shape at every T."""
    device = device_facts()
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"gpu_{device['name'].replace('NVIDIA', '').strip().replace(' ', '_').lower()}.jsonl"
    cases = [("layer", name, n, k, t) for name, n, k in SHAPES for t in tokens or TOKENS]
    cases += [
        ("patterns", *shape, t) for shape in SHAPES if shape[0] in PATTERN_SHAPES for t in PATTERN_TOKENS
    ]
    with path.open("w") as file:
        described = {"environment": environment.describe(), "device": device, "dtype": "bfloat16"}
        _write(file, {"kind": "run", **described, "pattern": "2:4", "copy_gb_per_s": copy_bandwidth()})
        for case in track(cases, "Measuring"):
            try:
                row = measure(*case)
            except RuntimeError as error:  # out of memory, say: the other rows still count
                kind, name, _, _, t = case
                row = {"kind": "failed", "of": kind, "shape": name, "tokens": t, "why": str(error)[:300]}
            _write(file, row)
            print(_summary(row))
    print(f"wrote {path}")


def _write(file: TextIO, row: dict[str, object]) -> None:
    file.write(json.dumps(row) + "\n")
    file.flush()


def _summary(row: dict[str, object]) -> str:
    begin = f"{row['shape']:11} T {row['tokens']:6}"
    if row["kind"] == "failed":
        return f"{begin} {row['of']}: {row['why'].splitlines()[0]}"
    ms = {name: found["median"] for name, found in row["ms"].items()}
    dense = ms.pop("cublas", float("nan"))
    ratios = ", ".join(f"{name} {dense / time:.2f}x" for name, time in ms.items())
    failed = "".join(f"; {name} did not run" for name in row["failed"])
    return f"{begin} cuBLAS {dense:8.4f} ms; {ratios}{failed}"


if __name__ == "__main__":
    typer.run(main)
