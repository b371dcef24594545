"""The rules by which a model call that nothing else knows about is prefill or decode."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from amber_ext.phase.context import DECODE, PREFILL
from amber_ext.phase.rows import Rows, packed_rows

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


def prompt_requests(
    query_lengths: torch.Tensor, total_lengths: torch.Tensor, cached_prompts: str = "sparse"
) -> torch.Tensor:
    """Which requests of a packed batch process prompt tokens.

    Those with nothing in the cache, and those with several tokens now: nothing sampled comes in more than one token,
    unless the engine verifies drafts, where ``cached_prompts`` must be ``"dense"``. The very last chunk of a prompt
    counts as decode when it is a single token.

    Args:
        query_lengths: tokens of each request in this call, integers ``[R]``.
        total_lengths: the same and what its cache holds, integers ``[R]``.

    Returns:
        bool ``[R]``.
    """
    first = query_lengths == total_lengths
    return first | (query_lengths > 1) if cached_prompts == "sparse" else first


def phase_of_packed_call(tokens: torch.Tensor, arguments: Mapping[str, object]) -> Rows | str:
    """The phases of one call of transformers' continuous batching, whose paged cache knows no lengths.

    Dense in compiled code and CUDA graphs, which would repeat the first batch's rows for all later ones.

    Args:
        tokens: ``[1, T]``, the requests' one after the other.
        arguments: of the model: the boundaries of the requests.
    """
    starts, totals = arguments.get("cu_seq_lens_q"), arguments.get("cu_seq_lens_k")
    if isinstance(totals, Mapping):
        # A sliding window forgets, so that only full attention knows what a request has in the cache.
        totals = totals.get("full_attention", next(iter(totals.values()), None))
    if starts is None or totals is None or torch.compiler.is_compiling():
        return DECODE
    if starts.is_cuda and torch.cuda.is_current_stream_capturing():
        return DECODE
    lengths, totals = starts.diff(), totals.diff()
    is_prompt = prompt_requests(lengths, totals).tolist()
    if not any(is_prompt):
        return DECODE
    return packed_rows(lengths.tolist(), is_prompt, tokens.shape[1], tokens.device)
