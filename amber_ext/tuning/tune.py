"""`tune`: every kernel is checked, then timed, for the shapes of a model; plans follow what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

import torch

from amber_ext.files import check_folder
from amber_ext.layers.planned import Planned
from amber_ext.ops import sparse_gemms
from amber_ext.ops.choice import devices, measured
from amber_ext.ops.choice.measured import Entry
from amber_ext.ops.choice.products import forget_plans, problem_of
from amber_ext.ops.pattern import widened_features
from amber_ext.ops.sparse_gemms import DENSE, MASKED_DENSE, Problem, refusal, walks_of
from amber_ext.progress import progress_bar
from amber_ext.tuning.bench import Bench, DeviceBench

TOKENS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


@dataclass(frozen=True)
class TuningReport:
    """What `tune` found.

    Attributes:
        entries: one for each weight's shape, pattern and dtype that was measured.
        left_out: those for which there was no time, or nothing to choose, and why.
        path: the file that holds the entries.
    """

    entries: tuple[Entry, ...]
    left_out: tuple[str, ...]
    path: Path

    def rows(self) -> Iterator[tuple[Entry, int, str, float]]:
        """Entry, tokens, the fastest kernel with the same result, and how many times as fast as dense it is."""
        for entry in self.entries:
            for tokens, ms in sorted(entry.ms.items()):
                pruned = {name: time for name, time in ms.items() if name != DENSE}
                best = min(pruned, key=pruned.get)
                yield entry, tokens, best, ms[DENSE] / pruned[best]


def tune(
    model: torch.nn.Module,
    tokens: Sequence[int] = TOKENS,
    budget_s: float = 60.0,
    *,
    progress: bool = False,
    bench: Bench | None = None,
) -> TuningReport:
    """Measures the kernels for this model's pruned layers on their GPU, and lets the layers take the fastest.

    The times are kept in the user's cache folder, for this kind of GPU, driver, torch and build; layers that are made
    later find them there. What an interrupted run has finished is kept. Where processes share a model
    (torch.distributed), all of them call this, and the first one measures for all.

    Args:
        model: pruned by `sparsify_` or `quantize_`, on a CUDA device.
        tokens: numbers of tokens to measure at; between them times are interpolated, outside of them predicted.
        budget_s: no measurement begins later than this, in seconds; the largest layers come first.
        bench: what measures, instead of the device.

    Raises:
        ValueError: the model has no pruned layers on a GPU, the cache folder cannot be written, or another argument is
            not as above.
        RuntimeError: a graph is being compiled or captured.
    """
    _refuse_graphs()
    tokens = _checked_tokens(tokens)
    if isinstance(budget_s, bool) or not isinstance(budget_s, int | float) or not budget_s > 0:
        raise ValueError(f"budget_s: {budget_s!r} is not allowed; it must be a number of seconds > 0")
    layers = [layer for layer in model.modules() if isinstance(layer, Planned) and _is_tunable(layer)]
    if not layers:
        raise ValueError(
            "model: it has no pruned layers on a CUDA device; sparsify_ or quantize_ one that is on a GPU"
        )
    device = devices.device_of(layers[0].weight.device)
    path = measured.tuning_file(device)
    check_folder("cache folder", path.parent)
    problems = _problems(model, layers)

    def measure() -> TuningReport:
        deadline = time.monotonic() + budget_s
        entries, left_out = [], []
        for problem in progress_bar(problems, "Measuring", progress):
            entry, why = _measure(problem, tokens, deadline, bench or DeviceBench())
            if why:
                left_out.append(f"{measured.name_of(measured.key_of(problem))}: {why}")
            if entry is not None:
                entries.append(entry)
                measured.keep(device, [entry])
        return TuningReport(tuple(entries), tuple(left_out), path)

    report = _by_the_first_process(measure)
    if report.entries:  # of the first process, for those on other machines
        measured.keep(device, report.entries)
    forget_plans()
    for layer in layers:
        layer.keep_copies()
    return report


def _measure(
    problem: Problem, tokens: Sequence[int], deadline: float, bench: Bench
) -> tuple[Entry | None, str | None]:
    """The times of a product, and why some or all of them are missing."""
    taken = [gemm for gemm in sparse_gemms.SPARSE_GEMMS if refusal(gemm, problem) is None]
    if not taken:
        return None, "no sparse GEMM of this build takes it"
    gemms = [name for gemm in taken for name in (gemm.name, *walks_of(gemm))]
    ms, refused, late = {}, {}, None
    for count in tokens:
        if time.monotonic() >= deadline:
            late = f"out of time after {len(ms)} of {len(tokens)} measurements"
            break
        try:
            for gemm in gemms:
                if gemm not in refused and (wrong := bench.check(problem, gemm, count)) is not None:
                    refused[gemm] = wrong
            kernels = [MASKED_DENSE, *(gemm for gemm in gemms if gemm not in refused), DENSE]
            ms[count] = bench.times(problem, kernels, count)
        except torch.OutOfMemoryError:
            late = f"out of memory at {count} tokens"
            break
    # A kernel that failed at some number of tokens is taken at none.
    ms = {count: {name: t for name, t in found.items() if name not in refused} for count, found in ms.items()}
    if not ms:
        return None, late
    return Entry(*measured.key_of(problem), ms, refused), late


def _problems(model: torch.nn.Module, layers: Sequence[Planned]) -> list[Problem]:
    """The different products of these layers, with the copies that they might have; the largest first."""
    floats = (p.dtype for p in model.parameters() if p.dtype in (torch.bfloat16, torch.float16))
    model_dtype = next(floats, torch.bfloat16)
    found = {}
    for layer in layers:
        dtypes = layer.input_dtypes()
        problem = problem_of(*layer.prefill_key(dtypes[0] if len(dtypes) == 1 else model_dtype))
        columns = widened_features(problem.in_features, problem.pattern)
        problem = replace(problem, weight_columns=columns or problem.in_features, aligned=True)
        found.setdefault(measured.key_of(problem), problem)
    return sorted(found.values(), key=lambda p: p.out_features * p.in_features, reverse=True)


def _is_tunable(layer: Planned) -> bool:
    return layer.weight.device.type == "cuda" and layer.pattern.n < layer.pattern.m


def _checked_tokens(tokens: Sequence[int]) -> list[int]:
    counts = list(tokens)
    for count in counts:
        if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
            raise ValueError(f"tokens: {count!r} is not allowed; it must be numbers of tokens >= 1")
    if not counts:
        raise ValueError("tokens: it is empty; at least 1 number of tokens is needed")
    return sorted({int(count) for count in counts})


def _refuse_graphs() -> None:
    capturing = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    if capturing or torch.compiler.is_compiling():
        raise RuntimeError("tune: it cannot run while a graph is compiled or captured; call it before")


def _by_the_first_process(measure: Callable[[], TuningReport]) -> TuningReport:
    """So that all processes of a model run the same kernels."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return measure()
    shared: list[TuningReport | None] = [None]
    if distributed.get_rank() == 0:
        try:
            shared = [measure()]
        finally:  # the others wait
            distributed.broadcast_object_list(shared, src=0)
    else:
        distributed.broadcast_object_list(shared, src=0)
    if shared[0] is None:
        raise RuntimeError("tune: the first process could not measure; its message says why")
    return shared[0]
