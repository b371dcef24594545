"""The rules by which a model call that nothing else knows about is prefill or decode."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from amber_ext.phase.context import DECODE, PREFILL

# What several tokens are that come behind a cache that holds some: the rest of a prompt, or sampled ones.
CACHED_PROMPTS = ("sparse", "dense")


def is_empty(cache: object) -> bool:
    """Whether a cache holds no token yet. Reads a static cache's counter, which may wait for a GPU."""
    if isinstance(cache, Mapping):
        return not cache  # XLM
    if not hasattr(cache, "get_seq_length"):
        return int(cache.seqlen_offset) == 0  # xLSTM
    layers = getattr(cache, "layers", ())
    if not (layers and all(cache.is_linear)) and int(cache.get_seq_length()) > 0:
        return False
    # A layer of linear attention (Mamba) has a state instead of a length.
    return not any(
        any(getattr(layer, "has_previous_state", {}).values()) or _length(layer) for layer in layers
    )


def _length(layer: object) -> int:
    return int(layer.get_seq_length()) if hasattr(layer, "get_seq_length") else 0


def phase_of_call(cache: object | None, query_length: int, cached_prompts: str) -> str:
    """The phase of one call of a model, from what its cache holds.

    Args:
        cache: a transformers cache, or None.
        query_length: tokens per sequence in this call.
        cached_prompts: one of `CACHED_PROMPTS`.

    Raises:
        TypeError: the cache does not say what it holds.
    """
    if cache is None:
        return PREFILL
    if not (
        isinstance(cache, Mapping) or hasattr(cache, "get_seq_length") or hasattr(cache, "seqlen_offset")
    ):
        raise TypeError(
            f"cache: {type(cache).__name__} does not say how many tokens it holds, so that prefill and decode cannot be "
            "told apart; it must have get_seq_length, or say which by amber_ext.prefill() or decode()"
        )
    if query_length > 1 and cached_prompts == "sparse":
        return PREFILL
    if query_length == 1 and counts_in_tensor(cache):
        # Reading it would synchronise a GPU and break a compiled graph, at every decoded token.
        return DECODE
    return PREFILL if is_empty(cache) else DECODE


def counts_in_tensor(cache: object) -> bool:
    """Whether a cache (a static one) keeps its length in a tensor."""
    if not hasattr(cache, "get_seq_length") or all(getattr(cache, "is_linear", ())):
        return False
    return isinstance(cache.get_seq_length(), torch.Tensor)
