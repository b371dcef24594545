"""What the heuristic of `auto` chooses and predicts, on GPUs that are not here. Writes predicted.json; nothing is measured.

Usage: PYTHONPATH=benchmarks python benchmarks/predictions/predict.py
"""

from __future__ import annotations

import dataclasses

import environment
import torch

from amber_ext import Pattern
from amber_ext.ops import sparse_gemms
from amber_ext.ops.choice import prediction
from amber_ext.ops.choice.devices import KNOWN, Device
from amber_ext.ops.choice.plan import Times
from amber_ext.ops.sparse_gemms import DENSE, Problem, SparseGemm, refusal

DEVICES = ("RTX 3090", "RTX 4090", "RTX 5090", "A100", "H100", "H20", "H200", "B200", "GB10")
# (name, N, K) of Llama-3.1-8B and Qwen2.5-7B.
SHAPES = (
    ("llama q", 4096, 4096),
    ("llama gate", 14336, 4096),
    ("llama down", 4096, 14336),
    ("qwen2.5 q", 3584, 3584),
    ("qwen2.5 gate", 18944, 3584),
    ("qwen2.5 down", 3584, 18944),
)
TOKENS = tuple(2**power for power in range(15))
# Public figures of cuSPARSELt over cuBLASLt at M = 8192, compressed beforehand: device, dtype, K'/K, least, largest.
# The model is calibrated with the first ones; of those with more columns than K it knows nothing.
PUBLIC = (
    ("A100", "bfloat16", 1.0, 1.36, 1.36),
    ("A100", "int8", 1.0, 2.06, 2.06),
    ("RTX 4090", "bfloat16", 1.0, 1.43, 1.70),
    ("RTX 4090", "float8_e4m3fn", 1.0, 2.05, 2.05),
    ("H100", "bfloat16", 1.0, 1.58, 1.66),
    ("H100", "float8_e4m3fn", 1.0, 1.60, 1.73),
    ("B200", "bfloat16", 1.0, 1.75, 1.85),
    ("RTX 5080", "bfloat16", 1.0, 1.70, 1.70),
    ("GB10", "bfloat16", 1.0, 0.60, 0.60),
    ("H100", "bfloat16", 1.5, 0.94, 1.08),
    ("RTX 5080", "bfloat16", 1.5, 1.17, 1.17),
)


def device(name: str) -> Device:
    """The known device of this name."""
    return next(known for known in KNOWN if known.name == name)


def problem(gpu: Device, n: int, k: int, weight_dtype: str = "bfloat16") -> Problem:
    """A layer's product at 2:4 with bf16 inputs."""
    dtypes = (torch.bfloat16, getattr(torch, weight_dtype))
    return Problem(torch.device("cuda"), gpu.arch, *dtypes, Pattern("2:4"), "none", n, k, k, True)


def chosen(gpu: Device, n: int, k: int, gemms: list[SparseGemm]) -> dict[str, list]:
    """T to the kernel that runs, its predicted ms, and those of the layer that is not pruned."""
    product = problem(gpu, n, k)
    times = Times(gpu, product, tuple(g for g in gemms if refusal(g, product) is None), None, "")
    plan, found = times.plan(), {}
    for tokens in TOKENS:
        known, _ = times.at(tokens)
        kernel = plan.kernel(tokens)
        found[str(tokens)] = [kernel, *(float(f"{known[name] * 1e3:.4g}") for name in (kernel, DENSE))]
    return found


def library_ratios(gpu: Device, weight_dtype: str, widened: float) -> list[float]:
    """Predicted time of the dense product over that of a library's sparse one, for every shape at T = 8192."""
    ratios = []
    for _, n, k in SHAPES:
        product = problem(gpu, n, k, weight_dtype)
        dense = prediction.dense_product(gpu, product, 8192)
        ratios.append(round(dense / prediction.sparse_product(gpu, product, 8192, widened * k), 3))
    return ratios


def predictions(gemms: list[SparseGemm]) -> dict[str, object]:
    """All of it, as the results file holds it."""
    return {
        "kernels": [{**vars(gemm), "tile": list(gemm.tile)} for gemm in gemms],
        "rows": [
            {"device": name, "shape": shape, "n": n, "k": k, "tokens": chosen(device(name), n, k, gemms)}
            for name in DEVICES
            for shape, n, k in SHAPES
        ],
        "public": [
            {"device": name, "dtype": dtype, "columns": widened, "least": least, "largest": largest,
             "predicted": library_ratios(device(name), dtype, widened)}
            for name, dtype, widened, least, largest in PUBLIC
        ],
        "devices": [dataclasses.asdict(known) for known in KNOWN],
    }  # fmt: skip


def main() -> None:
    if not sparse_gemms.SPARSE_GEMMS:
        raise SystemExit("predict.py: this build has no sparse GEMMs to choose among")
    print(f"wrote {environment.write('predicted', predictions(list(sparse_gemms.SPARSE_GEMMS)))}")


if __name__ == "__main__":
    main()
