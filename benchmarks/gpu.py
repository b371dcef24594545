"""GPU speed of pruned linear layers against cuBLAS, cuSPARSELt and dense 8-bit, in one run. Writes gpu_<name>.json.

Usage: gpu.py OUT_FOLDER [--tokens 64 ... 16384]

Medians of CUDA-event timings on random data; weights and inputs rotate through more memory than L2
holds. Each row has every spread (10th to 90th percentile), so that ratios can be judged.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import environment
import torch
import typer
from rich.progress import track

import amber_ext

# (name, N, K) of Llama-3.1-8B and Qwen2-7B.
SHAPES = (
    ("llama q", 4096, 4096),
    ("llama gate", 14336, 4096),
    ("llama down", 4096, 14336),
    ("qwen2 q", 3584, 3584),
    ("qwen2 gate", 18944, 3584),
    ("qwen2 down", 3584, 18944),
)
# All patterns that run on 2:4 hardware, and where they are compared.
PATTERNS = ("2:4", "10:16w", "12:16w", "4:8", "8:16")
PATTERN_SHAPES = ("llama gate", "llama down")
PATTERN_TOKENS = (512, 2048, 8192)
TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
ROTATE_BYTES = 256 << 20
REPEATS = 20
DTYPE = torch.bfloat16
SWEEP = environment.ROOT / "build" / "package" / "tests" / "cpp" / "amber_gpu_benchmark"


def event_times(function: Callable[[int], object], copies: int) -> dict[str, float]:
    """Median, 10th and 90th percentile in ms of function(i), i the copy to use."""
    for i in range(3):
        function(i % copies)
    events = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(REPEATS)
    ]
    for i, (start, stop) in enumerate(events):
        start.record()
        function(i % copies)
        stop.record()
    torch.cuda.synchronize()
    times = sorted(start.elapsed_time(stop) for start, stop in events)
    return {"median": times[REPEATS // 2], "p10": times[REPEATS // 10], "p90": times[-1 - REPEATS // 10]}


def copy_bandwidth() -> float:
    """GB/s of a large device-to-device copy, bytes read plus bytes written."""
    source = torch.randint(0, 255, (1 << 30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / event_times(lambda i: target.copy_(source), 1)["median"] * 1e-6


def measure(tokens: int, n: int, k: int) -> dict[str, object]:
    """Times of one shape: dense, ours, and cuSPARSELt where torch has it."""
    copies = min(4, max(1, ROTATE_BYTES // (2 * k * min(n, tokens))))
    xs = [torch.randn(tokens, k, device="cuda", dtype=DTYPE) for _ in range(copies)]
    weights = [torch.randn(n, k, device="cuda", dtype=DTYPE) / k**0.5 for _ in range(copies)]
    scale = torch.rand(k, device="cuda") + 0.5

    def ours(backend: str) -> dict[str, float]:
        return event_times(
            lambda i: amber_ext.linear(xs[i], weights[i], pattern="2:4", scale=scale, backend=backend), copies
        )

    times = {
        "cublas": event_times(lambda i: torch.nn.functional.linear(xs[i], weights[i]), copies),
        "amber_linear": ours("cutlass"),
        "amber_masked_dense": ours("cuda"),
    }
    times.update(measure_8bit(xs, weights, scale, copies))
    try:
        # cuSPARSELt's sparse operand is the first one: the activations, as with ours.
        pruned = [amber_ext.nm_prune(x, "2:4", scale) for x in xs]
        compressed = [torch._cslt_compress(x) for x in pruned]
        times["cusparselt_compress"] = event_times(lambda i: torch._cslt_compress(pruned[i]), copies)
        times["cusparselt_gemm"] = event_times(
            lambda i: torch._cslt_sparse_mm(compressed[i], weights[i].t()), copies
        )
    except (RuntimeError, AttributeError) as error:
        return {"ms": times, "cusparselt": f"not measured: {' '.join(str(error).split())[:200]}"}
    return {"ms": times, "cusparselt": "measured"}


def measure_8bit(
    xs: list[torch.Tensor], weights: list[torch.Tensor], scale: torch.Tensor, copies: int
) -> dict[str, dict[str, float]]:
    """W8A8 linear layers, each with its own quantisation of X, and torch's 8-bit products alone."""
    times = {}
    for dtype in ("int8", "e4m3"):
        quantized = [amber_ext.quantize_weight(weight, dtype) for weight in weights]
        inputs = [amber_ext.quantize_activations(x, dtype=dtype) for x in xs]

        def product(i: int, dtype: str = dtype, quantized: list = quantized, inputs: list = inputs) -> object:
            values, token_scale = inputs[i]
            weight, weight_scale = quantized[i]
            if dtype == "int8":
                return torch._int_mm(values, weight.t())
            scales = {"scale_a": token_scale[:, None], "scale_b": weight_scale[None, :]}
            return torch._scaled_mm(values, weight.t(), **scales, out_dtype=DTYPE)

        def dense(i: int, quantized: list = quantized) -> object:
            return amber_ext.linear_w8a8(xs[i], *quantized[i])

        def sparse(i: int, quantized: list = quantized) -> object:
            return amber_ext.linear_w8a8(xs[i], *quantized[i], pattern="2:4", scale=scale, backend="cutlass")

        times[f"{dtype}_product"] = event_times(product, copies)
        times[f"{dtype}_dense_linear"] = event_times(dense, copies)
        times[f"{dtype}_amber_linear"] = event_times(sparse, copies)
    return times


def measure_patterns(tokens: int, n: int, k: int) -> dict[str, object]:
    """Times of one shape under every pattern, beside dense bf16 and dense 8-bit of the same run."""
    copies = min(4, max(1, ROTATE_BYTES // (2 * k * min(n, tokens))))
    xs = [torch.randn(tokens, k, device="cuda", dtype=DTYPE) for _ in range(copies)]
    weights = [torch.randn(n, k, device="cuda", dtype=DTYPE) / k**0.5 for _ in range(copies)]
    quantized = [amber_ext.quantize_weight(weight) for weight in weights]
    scale = torch.rand(k, device="cuda") + 0.5
    times = {
        "cublas": event_times(lambda i: torch.nn.functional.linear(xs[i], weights[i]), copies),
        "int8_dense_linear": event_times(lambda i: amber_ext.linear_w8a8(xs[i], *quantized[i]), copies),
    }
    for pattern in PATTERNS:
        options = {"pattern": pattern, "scale": scale, "backend": "cutlass"}
        wide = [amber_ext.widen_weight(weight, pattern) for weight in weights]
        times[pattern] = event_times(lambda i, w=wide, o=options: amber_ext.linear(xs[i], w[i], **o), copies)
        wide8 = [(amber_ext.widen_weight(values, pattern), scales) for values, scales in quantized]
        times[f"int8 {pattern}"] = event_times(
            lambda i, w=wide8, o=options: amber_ext.linear_w8a8(xs[i], *w[i], **o), copies
        )
    return {"ms": times}


def run_sweep(program: Path, tokens: Sequence[int]) -> list[dict[str, object]]:
    """Compression and every GEMM on their own, from the torch-free benchmark; empty if it is not built."""
    if not program.is_file():
        return []
    command = [str(program), *map(str, tokens)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def device_facts() -> dict[str, str]:
    """GPU name, driver and clocks as nvidia-smi gives them."""
    fields = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw"
    output = subprocess.run(
        ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], capture_output=True, text=True
    ).stdout
    return dict(
        zip(fields.split(","), (part.strip() for part in output.split("\n")[0].split(",")), strict=False)
    )


def main(
    out: Annotated[Path, typer.Argument(help="Folder for the results file.")],
    tokens: Annotated[list[int] | None, typer.Option(help="Tokens T; repeat. [default: 64 to 16384]")] = None,
    sweep: Annotated[Path, typer.Option(help="The torch-free benchmark.")] = SWEEP,
) -> None:
    """Measures every shape at every T."""
    if not torch.cuda.is_available():
        raise SystemExit("gpu.py: no GPU that torch can use")
    rows = []
    cases = [(name, n, k, t) for name, n, k in SHAPES for t in tokens or TOKENS]
    for name, n, k, t in track(cases, "Measuring"):
        rows.append({"shape": name, "n": n, "k": k, "tokens": t, **measure(t, n, k)})
    pattern_cases = [
        (name, n, k, t) for name, n, k in SHAPES if name in PATTERN_SHAPES for t in PATTERN_TOKENS
    ]
    by_pattern = [
        {"shape": name, "n": n, "k": k, "tokens": t, **measure_patterns(t, n, k)}
        for name, n, k, t in track(pattern_cases, "Patterns")
    ]
    device = device_facts()
    major, minor = torch.cuda.get_device_capability()
    data = {
        "environment": environment.describe(),
        "device": {**device, "arch": major * 10 + minor},
        "dtype": "bfloat16",
        "pattern": "2:4",
        "copy_gb_per_s": copy_bandwidth(),
        "rows": rows,
        "patterns": by_pattern,
        "sweep": run_sweep(sweep, tokens or TOKENS),
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"gpu_{device['name'].replace('NVIDIA', '').strip().replace(' ', '_').lower()}.json"
    path.write_text(json.dumps(data, indent=2) + "\n")
    print(f"wrote {path}")
    for row in rows:
        dense, ours = (row["ms"][name]["median"] for name in ("cublas", "amber_linear"))
        print(
            f"{row['shape']:11} T {row['tokens']:6} cuBLAS {dense:8.4f} ms, ours {ours:8.4f} ms, "
            f"{dense / ours:.2f}x; int8 {dense / row['ms']['int8_amber_linear']['median']:.2f}x"
        )


if __name__ == "__main__":
    typer.run(main)
