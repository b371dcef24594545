"""Sparsity patterns: N:M, and the windowed ones, which hold more on hardware that keeps 2 of each 4 columns.

A window is four columns of which two slots may be used. The quads ``4q .. 4q + 3`` are windows already.
Appending copies of some columns of the weight adds windows: of each 16 columns, extra window 0 copies
column 3 of each quad, extra window 1 column 2. A survivor lies in exactly one slot, unused slots hold zero,
and the product of the widened X' and W' is that of the pruned X and W. SlideSparse (arXiv 2603.05232) is a relative:
it widens K so that 6:8 weights run on 2:4 hardware.

The compiled kernels do this in csrc/amber/window.h; here is the layout for the reference and for weights.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import torch

MAX_M = 32

WINDOW_COLUMNS = 16
COPIED_COLUMNS = (3, 2)
SLOTS = 2

# The patterns that run on 2:4 hardware, and how many extra windows of each 16 columns they need, as in
# csrc/amber/pattern.h. Those with a w fill all slots; of the others only 2:4 does.
EXTRA_WINDOWS = {"2:4": 0, "4:8": 2, "8:16": 2, "10:16w": 1, "12:16w": 2}


@dataclass(frozen=True, init=False)
class Pattern:
    """``N:M``: of every M consecutive channels of a token, N survive.

    ``Pattern("2:4")`` parses text; a ``Pattern`` is returned as it is. Any 1 <= N <= M <= 32 is
    allowed; the paper uses 2:4, 4:8 and 8:16 (arXiv 2508.02128, section 4).

    ``"10:16w"`` and ``"12:16w"`` are windowed: N of every 16 survive, restricted to the sets that a 2:4
    machine holds when copies of some columns of the weight are appended (see the module's text).

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
        if f"{n}:{m}w" not in EXTRA_WINDOWS if windowed else not 1 <= n <= m <= MAX_M:
            names = " and ".join(repr(name) for name in EXTRA_WINDOWS if name.endswith("w"))
            raise ValueError(
                f"pattern: {pattern!r} is not allowed; it must be 'N:M' with 1 <= N <= M <= {MAX_M}, "
                f"for example '2:4', '4:8' or '8:16', or one of the windowed {names}"
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


# Keeps everything: the dense layer.
UNPRUNED = Pattern("1:1")


def extra_windows(pattern: Pattern) -> int | None:
    """Extra windows of each 16 columns that a pattern needs; None when it does not run on 2:4 hardware."""
    return EXTRA_WINDOWS.get(str(pattern))


def window_columns(extra: int) -> list[frozenset[int]]:
    """The columns of each window, of 16."""
    quads = [frozenset(range(begin, begin + 4)) for begin in range(0, WINDOW_COLUMNS, 4)]
    copies = [frozenset(range(COPIED_COLUMNS[e], WINDOW_COLUMNS, 4)) for e in range(extra)]
    return quads + copies


@cache
def fitting_sets(extra: int) -> torch.Tensor:
    """Which sets of 16 columns find a slot for each column: bool ``[65536]``, a set as a bit mask.

    By Hall's theorem: a set fits when, for any windows, the columns that can use only those are at most
    as many as their slots.
    """
    windows = window_columns(extra)
    sets = torch.arange(1 << WINDOW_COLUMNS)
    fits = torch.ones_like(sets, dtype=torch.bool)
    for count in range(1, len(windows) + 1):
        for chosen in combinations(windows, count):
            others = frozenset().union(*(window for window in windows if window not in chosen))
            confined = [column for column in range(WINDOW_COLUMNS) if column not in others]
            fits &= sum((sets >> column) & 1 for column in confined) <= SLOTS * count
    return fits


def padded_features(in_features: int, extra: int) -> int:
    """K with the zero columns that make K' a multiple of 128."""
    multiple = {0: 1, 1: 512, 2: 256}[extra]
    return -(-in_features // multiple) * multiple


def widened_features(in_features: int, pattern: Pattern) -> int | None:
    """K', the columns of `widen_weight`'s result; None when the pattern does not run on 2:4 hardware."""
    extra = extra_windows(pattern)
    return None if extra is None else padded_features(in_features, extra) // 4 * (4 + extra)


def widen_weight(weight: torch.Tensor, pattern: str | Pattern) -> torch.Tensor:
    """``W' = [W ‖ copies]``, which the sparse kernels of patterns with extra windows take.

    Args:
        weight: ``[N, K]``, any dtype; K a multiple of 16.
        pattern: ``"4:8"``, ``"8:16"``, ``"10:16w"`` or ``"12:16w"`` (``"2:4"`` copies nothing).

    Returns:
        ``[N, K']``, contiguous: W, zero columns up to a multiple of 512 (one extra window) or 256 (two), then
        for each 16 columns 4 copies for each extra window. ``W'[:, :K]`` is W.

    Raises:
        ValueError: the pattern does not run on 2:4 hardware, or the weight's shape is not as above.
    """
    pattern = Pattern(pattern)
    extra = extra_windows(pattern)
    if extra is None:
        raise ValueError(
            f"pattern: '{pattern}' does not run on 2:4 hardware; allowed: "
            f"{', '.join(map(repr, EXTRA_WINDOWS))}"
        )
    if not isinstance(weight, torch.Tensor):  # ops.checks imports from here
        raise TypeError(f"weight: {type(weight).__name__} is not allowed; it must be a torch.Tensor")
    if weight.dim() != 2 or weight.shape[1] % WINDOW_COLUMNS != 0:
        raise ValueError(
            f"weight: shape {list(weight.shape)} is not allowed; it must be [N, K] with K a multiple of "
            f"{WINDOW_COLUMNS}"
        )
    out_features, in_features = weight.shape
    wide = weight.new_zeros((out_features, widened_features(in_features, pattern)))
    wide[:, :in_features] = weight
    if extra:
        padded = padded_features(in_features, extra)
        columns = wide[:, :padded].unflatten(1, (-1, 4, 4))  # groups of 16, quads, columns
        copies = wide[:, padded:].unflatten(1, (-1, extra, 4))
        for window in range(extra):
            copies[:, :, window] = columns[..., COPIED_COLUMNS[window]]
    return wide
