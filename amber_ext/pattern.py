"""Sparsity patterns: N:M, and the windowed ones."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_M = 32

# N of 16, as many as fit into the windows of `amber_ext.windows`.
WINDOWED = ((10, 16), (12, 16))


@dataclass(frozen=True, init=False)
class Pattern:
    """``N:M``: of every M consecutive channels of a token, N survive.

    ``Pattern("2:4")`` parses text; a ``Pattern`` is returned as it is. Any 1 <= N <= M <= 32 is
    allowed; the paper uses 2:4, 4:8 and 8:16 (arXiv 2508.02128, section 4).

    ``"10:16w"`` and ``"12:16w"`` are windowed: N of every 16 survive, restricted to the sets that a 2:4
    machine holds when copies of some columns of the weight are appended (`amber_ext.windows`).

    Raises:
        ValueError: the text is not of that form or out of range.
    """

    n: int
    m: int
    windowed: bool

    def __init__(self, pattern: str | Pattern) -> None:
        if isinstance(pattern, Pattern):
            n, m, windowed = pattern.n, pattern.m, pattern.windowed
        else:
            match = re.fullmatch(r"(\d{1,3}):(\d{1,3})(w?)", pattern) if isinstance(pattern, str) else None
            n, m = (int(match[1]), int(match[2])) if match else (0, 0)
            windowed = bool(match and match[3])
        if (n, m) not in WINDOWED if windowed else not 1 <= n <= m <= MAX_M:
            raise ValueError(
                f"pattern: {pattern!r} is not allowed; it must be 'N:M' with 1 <= N <= M <= {MAX_M}, "
                "for example '2:4', '4:8' or '8:16', or one of the windowed '10:16w' and '12:16w'"
            )
        object.__setattr__(self, "n", n)
        object.__setattr__(self, "m", m)
        object.__setattr__(self, "windowed", windowed)

    @property
    def density(self) -> float:
        """The share of channels that survive, N / M."""
        return self.n / self.m

    def __str__(self) -> str:
        return f"{self.n}:{self.m}{'w' if self.windowed else ''}"
