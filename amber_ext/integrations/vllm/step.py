"""Which rows of the batch that vLLM runs now are prompt: set by `runners`, asked by the layers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from vllm.config import CUDAGraphMode
from vllm.forward_context import get_forward_context, is_forward_context_available

from amber_ext.phase import DECODE, PREFILL, Rows

# A batch of no requests: vLLM measures memory with it, and captures CUDA graphs.
NO_REQUESTS = "no requests"


class _Step:
    """A process runs one step at a time.

    Attributes:
        phase: `PREFILL`, `DECODE`, `Rows`, `NO_REQUESTS`; None outside a step.
    """

    phase: Rows | str | None = None


_step = _Step()


def set_phase(phase: Rows | str | None) -> None:
    """Of the step that runs now, until `running` ends it."""
    _step.phase = phase


@contextlib.contextmanager
def running(phase: Rows | str | None) -> Iterator[None]:
    """A step begins, and ends."""
    before = _step.phase
    _step.phase = phase
    try:
        yield
    finally:
        _step.phase = before


def phase_of(x: torch.Tensor) -> Rows | str:
    """The phase of a layer's input ``[rows, K]`` in this step.

    Raises:
        RuntimeError: the rows of x cannot be told apart, since vLLM works in a way that amber_ext does not know.
    """
    phase = _step.phase
    context = get_forward_context() if is_forward_context_available() else None
    has_requests = context is not None and context.attn_metadata
    if phase is None and has_requests:
        raise RuntimeError(
            "vllm: a batch runs whose requests amber_ext does not know, so that prefill and decode cannot be told apart; "
            "allowed are vLLM's own model runners, for GPU and CPU"
        )
    if phase is None or (isinstance(phase, Rows) and not has_requests):
        return PREFILL  # image and speech encoders run on their own, and what they encode is prompt
    if phase == NO_REQUESTS:
        # A piece of a graph that is captured has none of our layers; memory is measured with the more expensive phase.
        captured = context is not None and context.cudagraph_runtime_mode != CUDAGraphMode.NONE
        return DECODE if captured else PREFILL
    if isinstance(phase, Rows) and len(x) != phase.count:
        raise RuntimeError(
            f"x: {len(x)} rows, but this step's batch has {phase.count}; amber_ext cannot tell prefill from decode where "
            "vLLM splits a batch (micro-batches, fast prefill of shared key-value caches)"
        )
    return phase
