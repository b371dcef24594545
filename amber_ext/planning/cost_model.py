"""What a projection's product costs at a pattern, relative to the dense one, in prefill."""

from __future__ import annotations

from amber_ext.layers.sites import LinearSite
from amber_ext.ops.measurements import NOT_SPARSE, find_measurement
from amber_ext.ops.pattern import Pattern, extra_windows

# Tokens of a prefill that measured costs are looked up for.
TOKENS = 8192


def bound(pattern: Pattern) -> float:
    """The least relative cost on 2:4 hardware: K' / K at twice the speed; 1 where the pattern does not run there."""
    extra = extra_windows(pattern)
    return 1.0 if extra is None else (1 + extra / 4) / 2


def relative_cost(site: LinearSite, pattern: Pattern, arch: int | None, dtype: str) -> float:
    """As measured (`amber_ext.ops.measurements`) for this architecture, else `bound`.

    Args:
        arch: compute capability, major * 10 + minor; None without a GPU.
        dtype: of the input, for example ``"bfloat16"``.
    """
    if arch is not None:
        measured = find_measurement(
            arch=arch,
            pattern=str(pattern),
            dtype=dtype,
            out_features=site.out_features,
            in_features=site.in_features,
            tokens=TOKENS,
        )
        if measured is not None:
            return 1.0 if measured.kernel in NOT_SPARSE else 1.0 / measured.speedup
    return bound(pattern)
