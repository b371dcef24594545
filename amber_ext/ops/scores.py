"""Channel scales c of the score ``|x_j| * c_j``, computed offline from a weight (arXiv 2508.02128, section 3).

A new score is an entry of `SCORES`, and nothing else: the command line, the configurations and the comparison of
methods take their names and descriptions from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from amber_ext.ops.checks import DTYPES, check_tensor, one_of

LOW_QUANTILE, HIGH_QUANTILE = 0.005, 0.995

# A channel whose column is constant (norm 0) does not matter to the output, but c must be > 0.
DEAD_CHANNEL_SCALE = 2.0**-24

# Between these the largest entry of a weight may be squared in fp32.
SMALLEST_SQUARED, LARGEST_SQUARED = 2.0**-40, 2.0**60

_CHUNK_ELEMENTS = 1 << 20  # bounds the working set: at most eight int64 copies, 64 MiB


@dataclass(frozen=True)
class Score:
    """How channels are weighed.

    Attributes:
        description: what an entry of X is ranked by, for tables and help texts.
        column_norms: a finite weight ``[N, K]`` to the norm of each column, fp64 ``[K]``; None where every channel
            weighs the same, so that no scale is needed.
    """

    description: str
    column_norms: Callable[[torch.Tensor], torch.Tensor] | None


def channel_scale(weight: torch.Tensor, score: str) -> torch.Tensor:
    """The channel scale c of a linear layer.

    Args:
        weight: ``[N, K]``, float32, float16 or bfloat16, finite.
        score: ``"magnitude"``: ``c = 1``. ``"wanda"``: ``c_j = ‖W_:j‖₂ / min_k ‖W_:k‖₂``.
            ``"robust_norm"``: the same of ``(W − μ) / σ``, where μ and σ are the mean and population
            standard deviation of the entries between the 0.5 % and 99.5 % quantiles of W.
            ``"robust_norm_trimmed"``: the same, but the norm too leaves out the entries beyond these quantiles (the
            formula as it is printed; a column that lies beyond them whole has norm 0).

    Returns:
        fp32 ``[K]`` on weight's device, finite and > 0. The minimum runs over columns of norm > 0;
        columns of norm 0 get 2**-24.

    Raises:
        ValueError: unknown score, weight not 2-dimensional, empty, or not finite. TypeError: no tensor, or its dtype.
    """
    one_of("score", score, tuple(SCORES))
    check_tensor("weight", weight)
    if weight.dim() != 2 or weight.numel() == 0:
        raise ValueError(f"weight: shape {list(weight.shape)} is not allowed; it must be [N, K], not empty")
    if weight.dtype not in DTYPES:
        raise TypeError(f"weight: dtype {weight.dtype} is not supported; allowed: {DTYPES}")
    weight = weight.detach()
    column_norms = SCORES[score].column_norms
    if column_norms is None:
        return torch.ones(weight.shape[1], device=weight.device)
    if weight.is_meta:
        raise ValueError(f"weight: a meta tensor has no values to compute the score {score!r} from")
    if not all(torch.isfinite(rows).all() for rows in _row_chunks(weight)):
        raise ValueError("weight: it contains NaN or Inf; every entry must be finite")
    norm = column_norms(weight)
    live = norm > 0
    if not live.any():
        return torch.ones(weight.shape[1], device=weight.device)
    # Columns more than 2**128 times longer than the shortest are equally long.
    scale = (norm / norm[live].min()).clamp(max=torch.finfo(torch.float32).max)
    return torch.where(live, scale, DEAD_CHANNEL_SCALE).float()


def needs_scale(score: str) -> bool:
    """Whether the selection reads a channel scale; without one, every c is 1."""
    one_of("score", score, tuple(SCORES))
    return SCORES[score].column_norms is not None


def selection_scale(weight: torch.Tensor, score: str) -> torch.Tensor | None:
    """`channel_scale`, or None where none is needed."""
    return channel_scale(weight, score) if needs_scale(score) else None


def centred_column_norms(
    weight: torch.Tensor, centre: float, inside: tuple[float, float] | None = None
) -> torch.Tensor:
    """``‖W_:j − centre‖₂``, fp64 ``[K]``; of the entries between (and including) these two alone, where they are given."""
    squares = torch.zeros(weight.shape[1], dtype=torch.float64, device=weight.device)
    largest = max(float(rows.abs().amax()) for rows in _row_chunks(weight))
    # Elsewhere squares in fp32 overflow or vanish. Within, fp32 stays, as scores must not change.
    dtype = torch.float32 if SMALLEST_SQUARED <= largest <= LARGEST_SQUARED else torch.float64
    for rows in _row_chunks(weight):
        entries = (rows.to(dtype) - centre).square()
        if inside is not None:
            entries = torch.where((rows.float() >= inside[0]) & (rows.float() <= inside[1]), entries, 0.0)
        squares += entries.sum(0, dtype=torch.float64)
    return squares.sqrt()


def trimmed_mean(weight: torch.Tensor, low: float, high: float) -> float:
    """The mean of the entries between (and including) ``low`` and ``high``."""
    total, count = 0.0, 0
    for rows in _row_chunks(weight):
        rows = rows.float()
        inside = (rows >= low) & (rows <= high)
        total += float(torch.where(inside, rows, 0.0).sum(dtype=torch.float64))
        count += int(inside.sum())
    return total / count


def exact_quantiles(values: torch.Tensor, quantiles: tuple[float, ...]) -> tuple[float, ...]:
    """Quantiles with linear interpolation, exact for any size (`torch.quantile` stops at 2**24).

    A radix selection: count the high 16 bits of every value, then the low 16 bits of the values in
    the buckets that hold the wanted ranks.
    """
    positions = [q * (values.numel() - 1) for q in quantiles]
    ranks = sorted({int(p) + i for p in positions for i in (0, 1) if int(p) + i < values.numel()})
    at_rank = dict(zip(ranks, _order_statistics(values, ranks), strict=True))
    result = []
    for position in positions:
        below = at_rank[int(position)]
        above = at_rank.get(int(position) + 1, below)
        result.append(below + (above - below) * (position - int(position)))
    return tuple(result)


def _order_statistics(values: torch.Tensor, ranks: list[int]) -> list[float]:
    """The elements at these ascending ranks of the sorted values."""
    buckets = 1 << 16
    # bfloat16 is the high half of a float32; float16 is exact in float32.
    high_counts = torch.zeros(buckets, dtype=torch.int64, device=values.device)
    for chunk in _flat_chunks(values):
        high_counts += torch.bincount(_sortable_bits(chunk) >> 16, minlength=buckets)
    cumulative = high_counts.cumsum(0)
    bucket_of = torch.searchsorted(cumulative, torch.tensor(ranks, device=values.device), right=True).tolist()
    low_counts = {bucket: torch.zeros_like(high_counts) for bucket in bucket_of}
    for chunk in _flat_chunks(values):
        bits = _sortable_bits(chunk)
        high = bits >> 16
        for bucket, counts in low_counts.items():
            counts += torch.bincount(bits[high == bucket] & 0xFFFF, minlength=buckets)
    result = []
    for rank, bucket in zip(ranks, bucket_of, strict=True):
        rank_in_bucket = rank - int(cumulative[bucket] - high_counts[bucket])
        low = int(torch.searchsorted(low_counts[bucket].cumsum(0), rank_in_bucket, right=True))
        result.append(_value_of((bucket << 16) | low))
    return result


def _sortable_bits(chunk: torch.Tensor) -> torch.Tensor:
    """int64 in [0, 2**32) whose order is the order of the float32 values."""
    bits = chunk.float().view(torch.int32)
    # Negative floats order backwards: flip all but their sign bit.
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() + 2**31


def _value_of(sortable: int) -> float:
    bits = sortable - 2**31
    bits = torch.tensor(bits, dtype=torch.int64).to(torch.int32)
    return float((bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(torch.float32))


def _row_chunks(weight: torch.Tensor) -> Iterator[torch.Tensor]:
    return iter(weight.split(max(1, _CHUNK_ELEMENTS // weight.shape[1])))


def _flat_chunks(values: torch.Tensor) -> Iterator[torch.Tensor]:
    return iter(values.flatten().split(_CHUNK_ELEMENTS))


def _robust_norms(weight: torch.Tensor, trimmed: bool) -> torch.Tensor:
    """``‖W_:j − μ‖₂``, fp64 ``[K]``, of all entries or of those that μ is taken from."""
    bounds = exact_quantiles(weight, (LOW_QUANTILE, HIGH_QUANTILE))
    # σ divides every column alike and cancels in c, so only μ is needed.
    return centred_column_norms(weight, trimmed_mean(weight, *bounds), bounds if trimmed else None)


# The score that needs no weight: the paper's naive top-k, and what experts are pruned by.
MAGNITUDE = "magnitude"

SCORES: dict[str, Score] = {
    MAGNITUDE: Score("|x|", None),
    "wanda": Score("|x| · norm of the weight's column", lambda weight: centred_column_norms(weight, 0.0)),
    "robust_norm": Score("|x| · robust norm (Amber Pruner)", lambda weight: _robust_norms(weight, False)),
    # As the paper prints it: W is replaced by its entries between the quantiles before the norm, too.
    "robust_norm_trimmed": Score(
        "|x| · robust norm without the outliers", lambda weight: _robust_norms(weight, True)
    ),
}
