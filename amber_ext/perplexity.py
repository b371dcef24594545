"""Loss and perplexity of a causal language model on token ids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from amber_ext.progress import progress_bar

WINDOW = 1024


def perplexity(
    model: torch.nn.Module,
    tokens: torch.Tensor,
    window: int = WINDOW,
    *,
    progress: bool = False,
    description: str = "Perplexity",
) -> float:
    """``exp`` of the mean negative log-likelihood over windows that do not overlap.

    Every window is one prefill without a cache; its first token is not scored. No BOS is added.

    Args:
        model: a transformers causal LM.
        tokens: ids ``[T]`` int64.
        window: tokens per window; a last shorter window counts when it has 2 tokens or more.
        progress: show a progress bar.

    Returns:
        Inf where it is too large for a float, NaN where a loss is.

    Raises:
        ValueError: fewer than 2 tokens, or a window under 2.
    """
    check_window(window)
    if tokens.dim() != 1 or len(tokens) < 2:
        raise ValueError(f"tokens: shape {list(tokens.shape)} is not allowed; at least [2] is needed")
    windows = [ids[None] for ids in tokens.split(window) if len(ids) > 1]
    loss = mean_loss(model, windows, progress=progress, description=description)
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def check_window(window: int) -> int:
    """``window``. Raises ValueError unless it has a token to predict from another."""
    if window < 2:
        raise ValueError(f"window: {window} is not allowed; at least 2 tokens are needed")
    return window


def mean_loss(
    model: torch.nn.Module,
    batches: Sequence[torch.Tensor],
    *,
    progress: bool = False,
    description: str = "Loss",
) -> float:
    """The mean negative log-likelihood, nats per token, of ids ``[B, T]``; first tokens are not scored.

    Raises:
        ValueError: no sequence has 2 tokens.
    """
    if not any(ids.shape[1] > 1 for ids in batches):
        raise ValueError("batches: no sequence has the 2 tokens that are needed to score one")
    total, count = 0.0, 0
    with torch.inference_mode():
        for ids in progress_bar(batches, description, progress):
            ids = ids.to(model.device)
            logits = model(ids, use_cache=False).logits[:, :-1].flatten(0, 1)
            total += F.cross_entropy(logits.float(), ids[:, 1:].flatten(), reduction="sum").item()
            count += ids.numel() - len(ids)
    return total / count
