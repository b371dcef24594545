"""Which phase holds here and now: what `prefill()` and `decode()` said, else what the running model call is."""

from __future__ import annotations

import contextlib
import contextvars
import sys
import threading
from collections.abc import Iterator

import torch

PREFILL = "prefill"
DECODE = "decode"
MIXED = "mixed"  # some rows of the call are prompt, others were sampled

# One entry for each `prefill()` or `decode()` that has begun and not ended, the latest last. Each is a list of its own,
# so that the one that ends finds itself whatever ended before it.
_explicit: contextvars.ContextVar[tuple[list[str], ...]] = contextvars.ContextVar("amber_phase", default=())


def __getattr__(name: str) -> object:
    # torch.compile can neither trace nor guard a ContextVar, but it guards an attribute of a module by reading it
    # before every call. So compiled code reads the variable as an attribute of this module.
    if name == "explicit_phase":
        entries = _explicit.get()
        return entries[-1][0] if entries else None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_here = sys.modules[__name__]


class State:
    """What belongs to a thread. A model's call and ``generate()`` do not await, so no other task sees them.

    Attributes:
        compiled: what `prefill()` or `decode()` said inside compiled code.
        call: the innermost model call that runs (`hooks.ModelCall`), or None.
        generation: the innermost ``generate()`` that runs (`generation.Generation`), or None.
    """

    def __init__(self) -> None:
        self.compiled: str | None = None
        self.call = None
        self.generation = None


class _Thread(threading.local):
    # torch.compile guards and replays the attributes of a plain object, but loses those that are set
    # on the thread-local itself: hence the state is one step away.
    def __init__(self) -> None:
        self.state = State()


_thread = _Thread()


def thread_state() -> State:
    """The calling thread's."""
    return _thread.state


def phase_now() -> object:
    """`PREFILL`, `DECODE`, or the `rows.Rows` that tell which rows of the running call are which."""
    state = _thread.state
    explicit = state.compiled or _here.explicit_phase
    if explicit is not None:
        return explicit
    return PREFILL if state.call is None else state.call.phase


def current_phase() -> str:
    """``"prefill"``, ``"decode"`` or ``"mixed"``, as the calling thread or asyncio task stands."""
    phase = phase_now()
    return phase if isinstance(phase, str) else MIXED


@contextlib.contextmanager
def _explicitly(phase: str) -> Iterator[None]:
    if torch.compiler.is_compiling():
        # Here neither threads nor tasks interleave: compiled code runs from end to end.
        state = _thread.state
        before = state.compiled
        state.compiled = phase
        try:
            yield
        finally:
            state.compiled = before
        return
    entry = [phase]
    _explicit.set((*_explicit.get(), entry))
    try:
        yield
    finally:
        _explicit.set(tuple(other for other in _explicit.get() if other is not entry))


def prefill() -> contextlib.AbstractContextManager[None]:
    """Within it, pruned layers run sparse, whatever the cache holds: in this thread, or in this asyncio task."""
    return _explicitly(PREFILL)


def decode() -> contextlib.AbstractContextManager[None]:
    """Within it, pruned layers run dense: in this thread, or in this asyncio task."""
    return _explicitly(DECODE)
