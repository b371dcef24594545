"""Times of GPU work by CUDA events. Variants of one problem take turns, so that clocks and heat are the same for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

REPEATS = 20
WARM_UPS = 3
# Cycles that the GPU waits before each turn, so that the CPU has sent all of it before the first kernel begins.
WAIT_CYCLES = 2_000_000

Variant = Callable[[int], object]


def times(variants: Mapping[str, Variant], copies: int, replay: bool) -> dict[str, dict[str, float] | str]:
    """Median, 10th and 90th percentile in ms of each variant, or a sentence that says why it did not run.

    Args:
        variants: functions of which copy of the inputs to use, 0 to ``copies`` - 1.
        replay: of a CUDA graph of one call on every copy, divided by their number: the CPU's part of a call is not timed.
    """
    failed, runs = {}, {}
    for name, variant in variants.items():
        try:
            for i in range(WARM_UPS):
                variant(i % copies)
            torch.cuda.synchronize()
            runs[name] = _graph(variant, copies) if replay else variant
        except (RuntimeError, ValueError, NotImplementedError, AttributeError) as error:
            failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    events = {name: [] for name in runs}
    for repeat in range(REPEATS):
        torch.cuda._sleep(WAIT_CYCLES)
        for name, run in runs.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run(repeat % copies)
            end.record()
            events[name].append((begin, end))
    torch.cuda.synchronize()
    calls = copies if replay else 1
    found = {
        name: sorted(begin.elapsed_time(end) / calls for begin, end in pairs)
        for name, pairs in events.items()
    }
    return failed | {
        name: {"median": ms[REPEATS // 2], "p10": ms[REPEATS // 10], "p90": ms[-1 - REPEATS // 10]}
        for name, ms in found.items()
    }


def _graph(variant: Variant, copies: int) -> Variant:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(copies):
            variant(i)
    return lambda i: graph.replay()
