"""Calls in which some rows are prompt and others were sampled: which rows are which, and running each as it must."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from amber_ext.phase.context import PREFILL, phase_now


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one call, a token each.

    Attributes:
        prompt, sampled: int64 indices; together they are all ``count`` rows.
    """

    prompt: torch.Tensor
    sampled: torch.Tensor
    count: int


def leading_rows(tokens: torch.Tensor, prompt_length: int) -> Rows:
    """Of tokens ``[B, T]`` (or ``[B, T, H]``) the first ``prompt_length`` of each sequence are prompt."""
    batch, length = tokens.shape[:2]
    rows = torch.arange(batch * length, device=tokens.device).view(batch, length)
    return Rows(rows[:, :prompt_length].flatten(), rows[:, prompt_length:].flatten(), batch * length)


def packed_rows(lengths: list[int], is_prompt: list[bool], count: int, device: torch.device) -> Rows | str:
    """Requests one after the other in one sequence of ``count`` rows; what follows them is padding.

    Returns:
        `PREFILL` when every row belongs to a prompt.
    """
    prompt = [flag for length, flag in zip(lengths, is_prompt, strict=True) for _ in range(length)]
    prompt += [False] * (count - len(prompt))
    if all(prompt):
        return PREFILL
    mask = torch.tensor(prompt)
    return Rows(mask.nonzero()[:, 0].to(device), (~mask).nonzero()[:, 0].to(device), count)


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
        others: where a call may have both kinds, one row for each row of x.

    Returns:
        ``[..., N]``.
    """
    phase = phase_now()
    if not isinstance(phase, Rows):
        return sparse(x, *others) if phase == PREFILL else dense(x, *others)
    flat = x.reshape(-1, x.shape[-1])
    if len(flat) != phase.count:
        return dense(x, *others)
    prompt, sampled = (
        run(flat[rows], *(other[rows] for other in others))
        for run, rows in ((sparse, phase.prompt), (dense, phase.sampled))
    )
    output = prompt.new_empty(phase.count, prompt.shape[-1])
    output[phase.prompt], output[phase.sampled] = prompt, sampled
    return output.view(*x.shape[:-1], -1)
