"""The products of a merged layer in prefill, part by part, each into its slice of the output."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from amber_ext.integrations.vllm.parts import Part
from amber_ext.ops.dense_products import dense_linear
from amber_ext.ops.functional import linear, linear_w8a8
from amber_ext.ops.pattern import UNPRUNED


def products(
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    bias: torch.Tensor | None,
    parts: Sequence[Part],
    scales: Sequence[torch.Tensor | None],
) -> torch.Tensor:
    """`linear` of each pruned part, `F.linear` of each dense one.

    Args:
        x: ``[rows, K]``.
        weights: of each part, ``[N of it, K]``, or widened.
        scales: of each part, fp32 ``[K]``.

    Returns:
        ``[rows, N]`` of x's dtype.
    """
    output = x.new_empty(len(x), parts[-1].end)
    for part, weight, scale in zip(parts, weights, scales, strict=True):
        out, wanted = output[:, part.begin : part.end], part.projection
        part_bias = None if bias is None else bias[part.begin : part.end]
        if wanted.pattern is None:
            dense_linear(x, weight, part_bias, out)
        else:
            linear(
                x,
                weight,
                part_bias,
                pattern=wanted.pattern,
                scale=scale,
                rescale=wanted.rescale,
                backend=wanted.backend,
                allow_unpruned=wanted.allow_unpruned,
                out=out,
            )
    return output


def products_w8a8(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    parts: Sequence[Part],
    scales: Sequence[torch.Tensor | None],
    smooth: Sequence[torch.Tensor | None],
    dense: bool = False,
) -> torch.Tensor:
    """`linear_w8a8` of each part.

    Args:
        x: ``[rows, K]``.
        weight, weight_scale: 8-bit ``[N, K]`` and fp32 ``[N]``, of all parts.
        scales, smooth: of each part, fp32 ``[K]``.
        dense: nothing is pruned.

    Returns:
        ``[rows, N]`` of x's dtype.
    """
    output = x.new_empty(len(x), parts[-1].end)
    for part, scale, factor in zip(parts, scales, smooth, strict=True):
        rows, wanted = slice(part.begin, part.end), part.projection
        unpruned = dense or wanted.pattern is None
        output[:, rows] = linear_w8a8(
            x,
            weight[rows],
            weight_scale[rows],
            None if bias is None else bias[rows],
            pattern=UNPRUNED if unpruned else wanted.pattern,
            scale=None if unpruned else scale,
            smooth=factor,
            rescale="none" if unpruned else wanted.rescale,
            backend=wanted.backend,
            allow_unpruned=wanted.allow_unpruned,
        )
    return output
