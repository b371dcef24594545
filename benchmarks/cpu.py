"""CPU speed: ratios to torch, and of fused to separate ops, measured in the same run. Writes results/cpu.json and cpu_fused.json.

Asserts the project's targets: nm_prune at least 30 times faster than the reference; prune
and dense product at most 10 % slower than F.linear; robust-norm scores of a large weight in under 3 s; fused ops at
least as fast as separate ones.

Usage: cpu.py [prune | fused]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import environment
import torch
import torch.nn.functional as F

import amber_ext
from amber_ext import Pattern
from amber_ext.ops import reference
from amber_ext.ops.fused.silu_mul import silu_mul_prune

T, K, N = 2048, 4096, 4096


def interleaved_medians(
    functions: dict[str, Callable[[], object]], repeats: int, before: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Median seconds of each, the functions taking turns so that drift meets them alike; ``before`` is not timed."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            before()
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def prune() -> None:
    """nm_prune and the layer around it."""
    x = torch.randn(T, K, dtype=torch.bfloat16)
    weight = torch.randn(N, K, dtype=torch.bfloat16) / K**0.5
    scale = torch.rand(K) + 0.5
    rows = []
    for pattern in ("2:4", "4:8", "8:16", "10:16w", "12:16w"):
        for rescale in ("none", "variance"):
            prune = interleaved_medians(
                {
                    "reference": lambda p=pattern, r=rescale: reference.nm_prune(x, Pattern(p), scale, r),
                    "nm_prune": lambda p=pattern, r=rescale: amber_ext.nm_prune(x, p, scale, r),
                },
                repeats=5,
            )
            product = interleaved_medians(
                {
                    "F.linear": lambda: F.linear(x, weight),
                    "linear": lambda p=pattern, r=rescale: amber_ext.linear(
                        x, weight, pattern=p, scale=scale, rescale=r
                    ),
                },
                repeats=9,
            )
            row = {
                "pattern": pattern,
                "rescale": rescale,
                "nm_prune_ms": prune["nm_prune"] * 1e3,
                "reference_ms": prune["reference"] * 1e3,
                "prune_speedup": prune["reference"] / prune["nm_prune"],
                "linear_ms": product["linear"] * 1e3,
                "dense_linear_ms": product["F.linear"] * 1e3,
                "linear_over_dense": product["linear"] / product["F.linear"],
            }
            rows.append(row)
            print(
                f"{pattern:5} rescale {rescale:8} nm_prune {row['nm_prune_ms']:6.2f} ms, "
                f"{row['prune_speedup']:6.1f}x the reference; prune + product "
                f"{row['linear_ms']:6.1f} ms, {row['linear_over_dense']:.3f} of F.linear",
                flush=True,
            )
    large = torch.randn(4096, 14336, dtype=torch.bfloat16)
    seconds = interleaved_medians({"s": lambda: amber_ext.channel_scale(large, "robust_norm")}, repeats=3)[
        "s"
    ]
    print(f"robust_norm of [4096, 14336] bf16: {seconds:.2f} s")
    path = environment.write(
        "cpu", {"shape": {"T": T, "K": K, "N": N}, "rows": rows, "robust_norm_s": seconds}
    )
    print(f"wrote {path.relative_to(environment.ROOT)}")
    target = rows[0]
    assert target["prune_speedup"] >= 30, target
    assert target["linear_over_dense"] <= 1.10, target
    assert seconds < 3, seconds


def fused() -> None:
    """silu_mul_prune beside silu, the product with up, and pruning (and quantising), one after the other."""
    columns, rows = 14336, []
    gate, up = (torch.randn(T // 4, columns).bfloat16() for _ in range(2))
    scale = torch.rand(columns) + 0.5
    for dtype in (None, "int8"):
        for pattern in ("2:4", "10:16w", "12:16w"):
            for rescale in ("none", "variance"):
                how = {"scale": scale, "rescale": rescale}

                def separate(d=dtype, p=pattern, how=how) -> object:
                    x = F.silu(gate) * up
                    if d is None:
                        return amber_ext.nm_prune(x, p, **how)
                    return amber_ext.quantize_activations(x, p, dtype=d, **how)

                ms = interleaved_medians(
                    {
                        "separate": separate,
                        "fused": lambda d=dtype, p=pattern, how=how: silu_mul_prune(
                            gate, up, p, dtype=d, **how
                        ),
                        "silu": lambda: F.silu(gate),
                    },
                    repeats=15,
                )
                ratio = ms["separate"] / ms["fused"]
                row = {"values": dtype or "bfloat16", "pattern": pattern, "rescale": rescale, "ratio": ratio}
                rows.append(row | {f"{name}_ms": seconds * 1e3 for name, seconds in ms.items()})
                print(f"{row['values']:8} {pattern:6} {rescale:8} {ratio:.2f}", flush=True)
    path = environment.write("cpu_fused", {"shape": {"T": T // 4, "K": columns}, "rows": rows})
    print(f"wrote {path.relative_to(environment.ROOT)}")
    assert all(row["ratio"] >= 1 for row in rows), rows


def fused_table() -> str:
    """The rows of cpu_fused.json."""
    data = environment.load("cpu_fused")
    shape, where = data["shape"], data["environment"]
    cells = [
        [row["values"], row["pattern"], row["rescale"], f"{row['fused_ms']:.1f} ms", f"{row['ratio']:.2f}×"]
        for row in data["rows"]
    ]
    caption = (
        f"The input of down_proj, silu(gate) · up in bf16 [{shape['T']}, {shape['K']}], pruned: `silu_mul_prune` beside the "
        f"separate ops, {where['threads']} threads of an {where['cpu']} ({where['cpu_capability']}) "
        "(`benchmarks/results/cpu_fused.json`):"
    )
    return (
        caption
        + "\n\n"
        + environment.markdown(["values", "pattern", "rescale", "fused", "faster than separate"], cells)
    )


PARTS = {"prune": prune, "fused": fused}


def main() -> None:
    torch.manual_seed(0)
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
