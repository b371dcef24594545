"""Prefill or decode: pruned layers run sparse in prefill and dense in decode.

A sequence length is not a phase (prompt lookup decodes several tokens at once, continuous batching
packs several requests into one row), so the phase is set from outside the layers:

* `prefill()` and `decode()` say it explicitly, for the calling thread;
* otherwise the model's pre-hook sets it for each forward: prefill when the cache is empty or there
  is none (log-likelihood scoring), decode when the cache already holds tokens. Chunked prefill and
  continuous batching therefore run dense unless `prefill()` says otherwise;
* a layer that is called by itself, outside such a model, runs in prefill.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Iterator

import torch

PREFILL = "prefill"
DECODE = "decode"


class _PhaseState:
    def __init__(self) -> None:
        self.explicit: str | None = None  # by prefill() / decode()
        self.of_model: str | None = None  # by the pre-hook of the model that is running


class _Thread(threading.local):
    # torch.compile guards and replays the attributes of a plain object, but loses those that are set
    # on the thread-local itself: hence the state is one step away.
    def __init__(self) -> None:
        self.phase = _PhaseState()


_thread = _Thread()


def current_phase() -> str:
    """``"prefill"`` or ``"decode"``, as the calling thread stands."""
    state = _thread.phase
    return state.explicit or state.of_model or PREFILL


@contextlib.contextmanager
def _explicitly(phase: str) -> Iterator[None]:
    state = _thread.phase
    before = state.explicit
    state.explicit = phase
    try:
        yield
    finally:
        state.explicit = before


def prefill() -> contextlib.AbstractContextManager[None]:
    """Within it, pruned layers of this thread run sparse, whatever the cache holds."""
    return _explicitly(PREFILL)


def decode() -> contextlib.AbstractContextManager[None]:
    """Within it, pruned layers of this thread run dense."""
    return _explicitly(DECODE)


def phase_of_call(cache: object | None, query_length: int) -> str:
    """The phase of one model call, from what its cache holds.

    Args:
        cache: a transformers ``Cache``, the paged cache of continuous batching, or None.
        query_length: tokens per sequence in this call.
    """
    if cache is None:
        return PREFILL
    if not hasattr(cache, "get_seq_length"):
        return DECODE  # continuous batching: one call mixes prefills and decodes
    past_length = cache.get_seq_length()
    if isinstance(past_length, torch.Tensor):
        # A static cache counts in a tensor. Reading it would synchronise a GPU and break a compiled
        # graph, so do it only where one token leaves the question open: a single token is decode.
        if query_length == 1:
            return DECODE
        past_length = int(past_length)
    return PREFILL if past_length == 0 else DECODE


# What transformers calls the cache, from 5.24 on and before; continuous batching always says "cache".
CACHE_ARGUMENTS = ("cache", "past_key_values")


class PhaseHook:
    """The model-level hooks; an instance knows where the model's forward takes its arguments."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.positions = {
            name: index for index, name in enumerate(inspect.signature(model.forward).parameters)
        }
        if "use_cache" in self.positions and not set(CACHE_ARGUMENTS) & self.positions.keys():
            raise ValueError(
                f"model: {type(model).__name__} caches, but its forward takes no {' or '.join(CACHE_ARGUMENTS)}, so that "
                "prefill and decode cannot be told apart; allowed are models that keep their past in one of these"
            )

    def _argument(self, name: str, args: tuple, kwargs: dict) -> object | None:
        position = self.positions.get(name, len(args))
        return args[position] if position < len(args) else kwargs.get(name)

    def before(self, module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        tokens = self._argument("input_ids", args, kwargs)
        if tokens is None:
            tokens = self._argument("inputs_embeds", args, kwargs)
        query_length = tokens.shape[1] if isinstance(tokens, torch.Tensor) and tokens.dim() > 1 else 1
        caches = [self._argument(name, args, kwargs) for name in CACHE_ARGUMENTS]
        cache = next((cache for cache in caches if cache is not None), None)
        _thread.phase.of_model = phase_of_call(cache, query_length)

    def after(self, module: torch.nn.Module, args: tuple, output: object) -> None:
        _thread.phase.of_model = None


def install_phase_hooks(model: torch.nn.Module) -> None:
    """Makes ``model`` set the phase for its forward. Installing twice changes nothing.

    In a transformers model the hooks are on the decoder inside: peft calls a language model's ``forward`` past its
    hooks, but the decoder within is always called as a module.

    Raises:
        ValueError: the model caches, and takes its cache by a name that is not known here.
    """
    if not hasattr(model, "_amber_phase_handles"):
        decoder = getattr(model, "base_model", model)
        hook = PhaseHook(decoder)
        model._amber_phase_handles = (
            decoder.register_forward_pre_hook(hook.before, with_kwargs=True),
            decoder.register_forward_hook(hook.after, always_call=True),
        )


def remove_phase_hooks(model: torch.nn.Module) -> None:
    """Undoes `install_phase_hooks`."""
    for handle in model.__dict__.pop("_amber_phase_handles", ()):
        handle.remove()
