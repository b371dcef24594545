"""Windows: how patterns other than 2:4 run on hardware that keeps 2 of each 4 columns.

A window is four columns of which two slots may be used. The quads ``4q .. 4q + 3`` are windows already.
Appending copies of some columns of the weight adds windows: of each 16 columns, extra window 0 copies
column 3 of each quad, extra window 1 column 2. A survivor lies in exactly one slot, unused slots hold zero,
and the product of the widened X' and W' is that of the pruned X and W.

The compiled kernels do this in csrc/amber/window.h; here is the layout for the reference and for weights.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations

import torch

from amber_ext.pattern import Pattern

WINDOW_COLUMNS = 16
COPIED_COLUMNS = (3, 2)
SLOTS = 2

_EXTRA_WINDOWS = {"2:4": 0, "10:16w": 1, "12:16w": 2, "4:8": 2, "8:16": 2}


def extra_windows(pattern: Pattern) -> int | None:
    """Extra windows of each 16 columns that a pattern needs; None when it does not run on 2:4 hardware."""
    return _EXTRA_WINDOWS.get(str(pattern))


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
            f"{', '.join(map(repr, _EXTRA_WINDOWS))}"
        )
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
