"""`CompressedForm`: the pruned input of a linear layer as the product wants it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from amber_ext.ops.choice.plan import Plan
from amber_ext.ops.pattern import Pattern, widened_features
from amber_ext.ops.reference import QUANTIZED_DTYPES
from amber_ext.ops.sparse_gemms import DENSE, MASKED_DENSE, SPARSE_GEMMS, without_walk

# Layouts of a form, by who reads it: torch's dense products, and the sparse GEMMs of SM80 and SM90.
LAYOUTS = ("dense", "sm80", "sm90")

# By the `SparseGemm.arch` of who reads them. Those for SM100 read forms that are not made here.
_READ_BY = {80: "sm80", 89: "sm80", 90: "sm90"}

# Rows that E covers are a multiple of the first, columns of the others: of 16-bit and of 8-bit values (metadata.h).
_TILES = {"sm80": (32, 32, 64), "sm90": (64, 128, 128)}


class CompressedForm(NamedTuple):
    """The pruned (and quantised) tokens ``[T, K]`` of one layer, in a layout.

    Attributes:
        values: ``[T, K]`` in layout ``"dense"``: the pruned tokens. Else ``[R, K' / 2]``: the two values that each four
            columns of the widened token keep; R is T, in ``"sm80"`` the next multiple of 32, whose rows hold zeros.
        metadata: uint8, E, which says which columns those are; empty in layout ``"dense"``.
        token_scale: fp32, one scale for each row of 8-bit values; else empty.
        pattern: that the tokens were pruned to.
        layout: one of `LAYOUTS`.
    """

    values: torch.Tensor
    metadata: torch.Tensor
    token_scale: torch.Tensor
    pattern: Pattern
    layout: str


def shapes_of(
    tokens: int, in_features: int, pattern: Pattern, layout: str, itemsize: int, is_8bit: bool
) -> tuple[tuple[int, int], int, int]:
    """The shape of values, the bytes of E, and the number of token scales.

    Args:
        itemsize: bytes of a value.
    """
    if layout == "dense":
        return (tokens, in_features), 0, tokens if is_8bit else 0
    columns = widened_features(in_features, pattern)
    row_tile, *column_tiles = _TILES[layout]
    rows = _round_up(tokens, row_tile) if layout == "sm80" else tokens
    metadata = _round_up(tokens, row_tile) * _round_up(columns, column_tiles[itemsize == 1]) // 8
    return (rows, columns // 2), metadata, rows if is_8bit else 0


def _round_up(value: int, multiple: int) -> int:
    return (value + multiple - 1) // multiple * multiple


def empty_form(
    x: torch.Tensor, pattern: str, dtype: str, layout: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values, E and token scales of x ``[..., K]``, with nothing in them: what the producers' fakes return.

    Args:
        pattern, dtype, layout: as the ops take them.
    """
    kind = QUANTIZED_DTYPES.get(dtype, x.dtype)
    tokens, columns = math.prod(x.shape[:-1]), x.shape[-1]
    is_8bit = dtype in QUANTIZED_DTYPES
    shape, metadata, scales = shapes_of(tokens, columns, Pattern(pattern), layout, kind.itemsize, is_8bit)
    return (
        x.new_empty(shape, dtype=kind),
        x.new_empty(metadata, dtype=torch.uint8),
        x.new_empty(scales, dtype=torch.float32),
    )


def layout_for(plan: Plan, tokens: int) -> str | None:
    """The layout in which this plan's product of T tokens reads its input, or None where it takes no form.

    On a GPU products take forms from the number of tokens on from which none but sparse GEMMs run.
    """
    if plan.backend == "cpu" and plan.kernels == (MASKED_DENSE,):
        return "dense"
    if plan.backend != "cuda":
        return None
    dense = [i for i, kernel in enumerate(plan.kernels) if kernel in (MASKED_DENSE, DENSE)]
    first = dense[-1] + 1 if dense else 0
    if first == len(plan.kernels) or (first > 0 and tokens < plan.thresholds[first - 1]):
        return None
    archs = {gemm.name: gemm.arch for gemm in SPARSE_GEMMS}
    return _READ_BY.get(archs[without_walk(plan.kernels[first])])
