"""Times of variants of one problem, taken as `amber_ext.tune` takes them, or replayed from CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from amber_ext.tuning.bench import REPEATS, WARM_UPS, event_times

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
    calls = copies if replay else 1
    found = {name: sorted(ms / calls for ms in taken) for name, taken in event_times(runs, copies).items()}
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
