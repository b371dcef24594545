"""What was measured to be fastest where: `measured.json` in this folder, filled from benchmark results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

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


def load(path: Path) -> tuple[Measurement, ...]:
    """The table in a file, narrowest classes first."""
    entries = [Measurement(**entry) for entry in json.loads(path.read_text())["measurements"]]
    return tuple(
        sorted(entries, key=lambda m: (m.min_out_features, m.min_in_features, m.min_tokens), reverse=True)
    )


# Read once: a call would break a compiled graph.
MEASUREMENTS = load(Path(__file__).parent / "measured.json")


def covering(
    *, arch: int, pattern: str, dtype: str, out_features: int, in_features: int
) -> list[Measurement]:
    """The measurements that cover this weight at some number of tokens, narrowest classes first."""
    return [
        entry
        for entry in MEASUREMENTS
        if (entry.arch, entry.pattern, entry.dtype) == (arch, pattern, dtype)
        and out_features >= entry.min_out_features
        and in_features >= entry.min_in_features
    ]


def find_measurement(
    *, arch: int, pattern: str, dtype: str, out_features: int, in_features: int, tokens: int
) -> Measurement | None:
    """The measurement that covers this product, or None."""
    entries = covering(
        arch=arch, pattern=pattern, dtype=dtype, out_features=out_features, in_features=in_features
    )
    return next((entry for entry in entries if tokens >= entry.min_tokens), None)
