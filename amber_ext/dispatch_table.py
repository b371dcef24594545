"""What was measured to be fastest where: `dispatch_table.json`, filled from benchmark results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent / "dispatch_table.json"

# What every sparse GEMM takes: 16-byte rows of Y, SM80's K tile, and rows that quantize_compress holds.
OUT_FEATURES_MULTIPLE = 8
IN_FEATURES_MULTIPLE = 64
IN_FEATURES_MULTIPLE_8BIT = 128
MAX_IN_FEATURES_8BIT = 32768

# Values of `kernel` that are not sparse GEMMs: prune and multiply densely; do not prune.
MASKED_DENSE = "masked_dense"
DENSE = "dense"
NOT_SPARSE = (MASKED_DENSE, DENSE)


@dataclass(frozen=True)
class Measurement:
    """A class of shapes, and the kernel that was fastest in it, compression included.

    Attributes:
        arch: compute capability, major * 10 + minor.
        dtype: of the input; for 8-bit weights theirs before it, for example ``"int8 bfloat16"``.
        min_out_features, min_in_features, min_tokens: the smallest N, K and T of the class.
        kernel: name of a sparse GEMM; ``"masked_dense"``; or ``"dense"`` where not pruning at all was
            fastest.
        speedup: over torch's dense product of the same dtype, at min_tokens.
        source: the results file in `benchmarks/results`.
    """

    arch: int
    pattern: str
    dtype: str
    min_out_features: int
    min_in_features: int
    min_tokens: int
    kernel: str
    speedup: float
    source: str


@cache
def measurements() -> tuple[Measurement, ...]:
    """The table, narrowest classes first."""
    entries = [Measurement(**entry) for entry in json.loads(TABLE.read_text())["measurements"]]
    return tuple(
        sorted(entries, key=lambda m: (m.min_out_features, m.min_in_features, m.min_tokens), reverse=True)
    )


def find_measurement(
    *, arch: int, pattern: str, dtype: str, out_features: int, in_features: int, tokens: int
) -> Measurement | None:
    """The measurement that covers this product, or None."""
    covering = _covering(arch, pattern, dtype, out_features, in_features)
    return next((entry for entry in covering if tokens >= entry.min_tokens), None)


def is_sparse_ever_fastest(
    *, arch: int, pattern: str, dtype: str, out_features: int, in_features: int
) -> bool:
    """Whether a sparse GEMM was fastest for this weight at any number of tokens."""
    covering = _covering(arch, pattern, dtype, out_features, in_features)
    return any(entry.kernel not in NOT_SPARSE for entry in covering)


def _covering(arch: int, pattern: str, dtype: str, out_features: int, in_features: int) -> list[Measurement]:
    """The measurements that cover this weight, narrowest classes first."""
    is_8bit = " " in dtype
    multiple = IN_FEATURES_MULTIPLE_8BIT if is_8bit else IN_FEATURES_MULTIPLE
    if out_features % OUT_FEATURES_MULTIPLE or in_features % multiple:
        return []
    if is_8bit and in_features > MAX_IN_FEATURES_8BIT:
        return []
    return [
        entry
        for entry in measurements()
        if (entry.arch, entry.pattern, entry.dtype) == (arch, pattern, dtype)
        and out_features >= entry.min_out_features
        and in_features >= entry.min_in_features
    ]
