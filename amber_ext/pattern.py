"""N:M sparsity patterns."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_M = 32


@dataclass(frozen=True, init=False)
class Pattern:
    """``N:M``: of every M consecutive channels of a token, N survive.

    ``Pattern("2:4")`` parses text; a ``Pattern`` is returned as it is. Any 1 <= N <= M <= 32 is
    allowed; the paper uses 2:4, 4:8 and 8:16 (arXiv 2508.02128, section 4).

    Raises:
        ValueError: the text is not of that form or out of range.
    """

    n: int
    m: int

    def __init__(self, pattern: str | Pattern) -> None:
        if isinstance(pattern, Pattern):
            n, m = pattern.n, pattern.m
        else:
            match = re.fullmatch(r"(\d{1,3}):(\d{1,3})", pattern) if isinstance(pattern, str) else None
            n, m = map(int, match.groups()) if match else (0, 0)
        if not 1 <= n <= m <= MAX_M:
            raise ValueError(
                f"pattern: {pattern!r} is not allowed; it must be 'N:M' with 1 <= N <= M <= {MAX_M}, "
                "for example '2:4', '4:8' or '8:16'"
            )
        object.__setattr__(self, "n", n)
        object.__setattr__(self, "m", m)

    @property
    def density(self) -> float:
        """The share of channels that survive, N / M."""
        return self.n / self.m

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"
