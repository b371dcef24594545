"""Perplexity and greedy answers of a causal language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

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

    Raises:
        ValueError: fewer than 2 tokens, or a window under 2.
    """
    if window < 2:
        raise ValueError(f"window: {window} is not allowed; at least 2 tokens are needed")
    if tokens.dim() != 1 or len(tokens) < 2:
        raise ValueError(f"tokens: shape {list(tokens.shape)} is not allowed; at least [2] is needed")
    windows = [ids[None] for ids in tokens.split(window) if len(ids) > 1]
    return math.exp(mean_loss(model, windows, progress=progress, description=description))


def mean_loss(
    model: torch.nn.Module,
    batches: Sequence[torch.Tensor],
    *,
    progress: bool = False,
    description: str = "Loss",
) -> float:
    """The mean negative log-likelihood, nats per token, of ids ``[B, T]``; first tokens are not scored."""
    total, count = 0.0, 0
    with torch.inference_mode():
        for ids in progress_bar(batches, description, progress):
            ids = ids.to(model.device)
            logits = model(ids, use_cache=False).logits[:, :-1].flatten(0, 1)
            total += F.cross_entropy(logits.float(), ids[:, 1:].flatten(), reduction="sum").item()
            count += ids.numel() - len(ids)
    return total / count


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file. Raises ValueError when it is missing, empty or not UTF-8."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"text: {str(path)!r} is not a file; it must be a UTF-8 text file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"text: {str(path)!r} is not UTF-8: {error}") from None
    if not text.strip():
        raise ValueError(f"text: {str(path)!r} is empty; it must hold text to score")
    return text


def builtin_text() -> str:
    """English text that comes with every Python: the language reference of `help()`."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def tokenize(tokenizer: object, text: str, limit: int) -> torch.Tensor:
    """The first ``limit`` token ids of ``text``, ``[<= limit]`` int64, no special tokens added."""
    if limit < 2:
        raise ValueError(f"tokens: {limit} is not allowed; at least 2 are needed")
    # Long files stay cheap: take as much text as it needs, and one token more, whose end the cut may
    # have changed.
    size = limit * 8
    while True:
        ids = tokenizer(text[:size], return_tensors="pt", add_special_tokens=False).input_ids[0]
        if len(ids) > limit or size >= len(text):
            return ids[:limit]
        size *= 4


def greedy_answer(model: torch.nn.Module, tokenizer: object, prompt: str, max_new_tokens: int = 48) -> str:
    """The model's greedy reply to a user's message, through its chat template where it has one."""
    if tokenizer.chat_template:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
    else:
        ids = tokenizer(prompt, return_tensors="pt")
    ids = ids.to(model.device)
    output = model.generate(**ids, max_new_tokens=max_new_tokens, do_sample=False)
    return tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip()
