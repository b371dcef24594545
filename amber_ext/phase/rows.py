"""Calls in which some rows are prompt and others were sampled: which rows are which, and running each as it must."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from amber_ext.phase.context import DECODE, PREFILL, phase_now


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one call, a token each.

    Attributes:
        prompt, sampled: int64 indices, or slices; together they are all ``count`` rows.
    """

    prompt: torch.Tensor | slice
    sampled: torch.Tensor | slice
    count: int


def leading_rows(tokens: torch.Tensor, prompt_length: int) -> Rows:
    """Of tokens ``[B, T]`` (or ``[B, T, H]``) the first ``prompt_length`` of each sequence are prompt."""
    batch, length = tokens.shape[:2]
    rows = torch.arange(batch * length, device=tokens.device).view(batch, length)
    return Rows(rows[:, :prompt_length].flatten(), rows[:, prompt_length:].flatten(), batch * length)


def rows_of_requests(
    computed: torch.Tensor,
    scheduled: torch.Tensor,
    prompt_lengths: torch.Tensor,
    count: int,
    device: torch.device,
) -> Rows | str:
    """The rows of a batch of an engine that knows of each request how far it is; they stand one after the other.

    A token is prompt when its position is below the length of its request's prompt: whether the prompt comes in chunks
    or behind a cached prefix, and also when a preempted request computes anew what it had sampled.

    Args:
        computed, scheduled: tokens of each request before this batch, and in it; integers ``[R]`` in host memory.
        prompt_lengths: of each request; as these.
        count: rows of the batch; those behind the last request are padding and count as what comes before them.
        device: of the indices.

    Returns:
        `PREFILL` or `DECODE` when all rows are of one kind.
    """
    prompt_tokens = (prompt_lengths - computed).clamp(min=0).minimum(scheduled)
    if torch.equal(prompt_tokens, scheduled):
        return PREFILL
    if not prompt_tokens.any():
        return DECODE
    # A request is a run of prompt rows and a run of sampled ones, either of which may be empty.
    runs = torch.stack((prompt_tokens, scheduled - prompt_tokens), dim=1).flatten()
    is_prompt = torch.tensor([True, False]).repeat(len(scheduled)).repeat_interleave(runs.long())
    padding = is_prompt[-1:].expand(count - len(is_prompt))
    is_prompt = torch.cat((is_prompt, padding))
    return Rows(_selected(is_prompt, device), _selected(~is_prompt, device), count)


def _selected(mask: torch.Tensor, device: torch.device) -> torch.Tensor | slice:
    """The rows where a mask in host memory is set: a slice where they are neighbours, which spares a copy of them."""
    rows = mask.nonzero()[:, 0]
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):
        return slice(first, last + 1)
    return rows.to(device, non_blocking=True)


def by_phase(
    sparse: Callable[..., torch.Tensor],
    dense: Callable[..., torch.Tensor],
    x: torch.Tensor,
    *others: torch.Tensor,
) -> torch.Tensor:
    """``sparse(x, *others)`` in prefill, ``dense(x, *others)`` in decode; row by row where a call has both.

    There an x of other rows than the call's tokens (one expert's tokens, an encoder's) runs dense: its rows cannot be
    told apart.

    Args:
        x: ``[..., K]``.
        others: ``[..., *]``, one row for each row of x.

    Returns:
        ``[..., N]``.
    """
    phase = phase_now()
    if isinstance(phase, Rows) and x.shape[:-1].numel() != phase.count:
        phase = DECODE
    return run_rows(phase, sparse, dense, x, *others)


def run_rows(
    phase: Rows | str,
    sparse: Callable[..., torch.Tensor],
    dense: Callable[..., torch.Tensor],
    x: torch.Tensor,
    *others: torch.Tensor,
) -> torch.Tensor:
    """As `by_phase`, in a phase that the caller knows; of `Rows`, x has as many as they count."""
    if not isinstance(phase, Rows):
        return sparse(x, *others) if phase == PREFILL else dense(x, *others)
    flat = x.reshape(-1, x.shape[-1])
    prompt, sampled = (
        run(flat[rows], *(other.reshape(-1, other.shape[-1])[rows] for other in others))
        for run, rows in ((sparse, phase.prompt), (dense, phase.sampled))
    )
    output = prompt.new_empty(phase.count, prompt.shape[-1])
    output[phase.prompt], output[phase.sampled] = prompt, sampled
    return output.view(*x.shape[:-1], -1)
