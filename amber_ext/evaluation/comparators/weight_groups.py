"""What the learners of weight masks share: groups of M weights, pieces of text, and the loss on one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from amber_ext.methods.calibration import list_batches
from amber_ext.phase import decode

# Tokens of one step.
PIECE = 256


def grouped(weight: torch.Tensor, m: int) -> torch.Tensor:
    """``[N, K]`` to ``[N · K / M, M]``: M consecutive columns of a row each."""
    return weight.reshape(-1, m)


def pieces_of(batches: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Token ids ``[B, T]`` in pieces of at most `PIECE` tokens a sequence; those of one token are left out.

    Raises: as `list_batches`, and ValueError where nothing is left.
    """
    pieces = [piece for batch in list_batches(batches) for piece in batch.split(PIECE, dim=1)]
    pieces = [piece for piece in pieces if piece.shape[1] > 1]
    if not pieces:
        raise ValueError("batches: no sequence has the 2 tokens that are needed to score one")
    return pieces


def loss_of(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """The mean negative log-likelihood of ids ``[B, T]``, nats per token; the model runs dense."""
    with decode():
        logits = model(ids, use_cache=False).logits[:, :-1].flatten(0, 1)
    return F.cross_entropy(logits.float(), ids[:, 1:].flatten())
