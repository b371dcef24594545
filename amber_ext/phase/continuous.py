"""Continuous batching of transformers: the manager of its requests knows which rows of a packed call are prompt."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping

import torch

from amber_ext.phase.context import DECODE
from amber_ext.phase.rows import Rows, rows_of_requests


class TrackedBatching:
    """Stands in the place of a model's ``init_continuous_batching``, and remembers the manager that it makes.

    Args:
        start: the model's own.
        owner: its `hooks.Installation`.
    """

    def __init__(self, start: Callable[..., object], owner: object) -> None:
        self.start, self.owner = start, owner

    @property
    def __wrapped__(self) -> Callable[..., object]:
        # For inspect.signature and help.
        return self.start

    def __call__(self, *args: object, **kwargs: object) -> object:
        """The manager."""
        manager = self.start(*args, **kwargs)
        self.owner.manager = weakref.ref(manager)
        return manager


def phase_of_packed_call(
    tokens: torch.Tensor, arguments: Mapping[str, object], manager: weakref.ref | None
) -> Rows | str:
    """The phases of one call of transformers' continuous batching, whose paged cache knows no lengths.

    Dense in compiled code and CUDA graphs, which would repeat the first batch's rows for all later ones.

    Args:
        tokens: ``[1, T]``, the requests' one after the other.
        arguments: of the model: the boundaries of the requests.
        manager: what `TrackedBatching` remembers; None where somebody else makes such calls. There a single token behind a
            cache counts as sampled.
    """
    starts, totals = arguments.get("cu_seq_lens_q"), arguments.get("cu_seq_lens_k")
    if isinstance(totals, Mapping):
        # A sliding window forgets, so that only full attention knows what a request has in the cache.
        totals = totals.get("full_attention", next(iter(totals.values()), None))
    if starts is None or totals is None or torch.compiler.is_compiling():
        return DECODE
    if starts.is_cuda and torch.cuda.is_current_stream_capturing():
        return DECODE
    processor = None if manager is None or manager() is None else manager().batch_processor
    if processor is not None:
        lengths = _lengths_of_requests(processor.inputs_and_outputs)
    else:
        scheduled, totals = starts.diff().cpu(), totals.diff().cpu()
        computed = totals - scheduled
        is_prompt = (computed == 0) | (scheduled > 1)
        lengths = (computed, scheduled, torch.where(is_prompt, totals, 0))
    return rows_of_requests(*lengths, tokens.shape[1], tokens.device)


def _lengths_of_requests(batches: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens of each request before this call, in it, and in its prompt."""
    if hasattr(batches, "io_pairs"):  # one batch is prepared while another one runs
        batches = batches.io_pairs[batches.current_pair].host_io
    lengths = []
    for request in batches.requests_in_batch:
        state, scheduled = request.state, request.query_length
        # A request that was set back has what it had sampled behind its prompt.
        prompt = state._true_initial_tokens or len(state.initial_tokens)
        lengths.append((state.position_offset - scheduled, scheduled, prompt))
    return torch.tensor(lengths).view(-1, 3).unbind(1)
