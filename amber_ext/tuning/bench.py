"""What `tune` measures with: `Bench`, and the one for a CUDA device."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch

from amber_ext.ops.choice import devices
from amber_ext.ops.pattern import widen_weight
from amber_ext.ops.sparse_gemms import MASKED_DENSE, Problem

REPEATS = 20
WARM_UPS = 3
# Cycles that the GPU waits before each round, so that the CPU has sent all of it before the first kernel begins: else
# short kernels would be as slow as the CPU sends them.
WAIT_CYCLES = 2_000_000
# Rounding steps of the output's dtype that sums in another order, or of the tensor cores' own precision, may be off.
TOLERANCE = 4


class Bench(Protocol):
    """Checks kernels and takes their times; a kernel is named as in a `Plan`.

    Raises torch.OutOfMemoryError for too many tokens.
    """

    def check(self, problem: Problem, kernel: str, tokens: int) -> str | None:
        """What is wrong with the kernel's result, compared with masked dense's, or None."""

    def times(self, problem: Problem, kernels: Sequence[str], tokens: int) -> dict[str, float]:
        """Kernel to time in ms."""


class DeviceBench:
    """Runs the ops on random data: every bit of 8-bit weights is random."""

    def check(self, problem: Problem, kernel: str, tokens: int) -> str | None:
        """See `Bench`."""
        run = _runner(problem, tokens, copies=1)
        want = run(MASKED_DENSE, 0)
        try:
            return difference(run(kernel, 0), want)
        except torch.OutOfMemoryError:
            raise  # that says nothing of the kernel
        except RuntimeError as error:
            return f"it failed: {' '.join(str(error).split())[:200]}"

    def times(self, problem: Problem, kernels: Sequence[str], tokens: int) -> dict[str, float]:
        """See `Bench`. Medians of CUDA events, one kernel after the other in every round.

        Inputs and weights are others in every round, of more memory than L2 holds.
        """
        with torch.cuda.device(problem.device):
            return self._times(problem, kernels, tokens)

    def _times(self, problem: Problem, kernels: Sequence[str], tokens: int) -> dict[str, float]:
        copies = copies_past_l2(problem, tokens, devices.device_of(problem.device).l2_mb)
        run = _runner(problem, tokens, copies)
        for kernel in kernels:
            for copy in range(WARM_UPS):
                run(kernel, copy % copies)
        runs = {kernel: partial(run, kernel) for kernel in kernels}
        return {name: statistics.median(ms) for name, ms in event_times(runs, copies).items()}


def event_times(runs: Mapping[str, Callable[[int], object]], copies: int) -> dict[str, list[float]]:
    """ms of `REPEATS` calls of each function by CUDA events; they take turns, so that clocks and heat are the same for all.

    Args:
        runs: functions of which copy of the inputs to use, 0 to ``copies`` - 1.
    """
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
    return {name: [begin.elapsed_time(end) for begin, end in pairs] for name, pairs in events.items()}


def copies_past_l2(problem: Problem, tokens: int, l2_mb: float) -> int:
    """How many inputs and weights are more than L2 holds, twice over; at least 2, at most 64."""
    sizes = (
        tokens * problem.in_features * problem.dtype.itemsize,
        problem.out_features * problem.weight_columns * problem.weight_dtype.itemsize,
    )
    return min(64, max(2, math.ceil(2 * l2_mb * 2**20 / max(1, sum(sizes)))))


def difference(y: torch.Tensor, want: torch.Tensor) -> str | None:
    """What tells ``y`` from ``want`` beyond rounding, or None."""
    got, wanted = y.float(), want.float()
    step = TOLERANCE * torch.finfo(y.dtype).eps
    allowed = step * (wanted.abs() + wanted.square().mean().sqrt())
    wrong = int((~((got - wanted).abs() <= allowed)).sum())
    return f"{wrong} of {y.numel()} values are not those of masked dense" if wrong else None


def _runner(problem: Problem, tokens: int, copies: int) -> Callable[[str, int], torch.Tensor]:
    """run(kernel, copy): the layer by one kernel, on one of the copies of its data."""
    device, pattern = problem.device, str(problem.pattern)
    n, k = problem.out_features, problem.in_features
    scale = torch.rand(k, device=device) + 0.5
    xs = [torch.randn(tokens, k, device=device, dtype=problem.dtype) for _ in range(copies)]
    weights = [widen_weight(_random_weight(problem), pattern) for _ in range(copies)]
    weight_scale = torch.rand(n, device=device) / k

    def run(kernel: str, copy: int) -> torch.Tensor:
        x, weight, ending = xs[copy], weights[copy], (pattern, problem.rescale, [kernel], [])
        if problem.is_8bit:
            return torch.ops.amber.linear_w8a8(x, weight, weight_scale, None, None, scale, *ending)
        return torch.ops.amber.linear(x, weight, None, scale, *ending)

    return run


def _random_weight(problem: Problem) -> torch.Tensor:
    shape = (problem.out_features, problem.in_features)
    if not problem.is_8bit:
        return torch.randn(shape, device=problem.device, dtype=problem.dtype) / problem.in_features**0.5
    values = torch.randint(-128, 128, shape, device=problem.device, dtype=torch.int8)
    if problem.operands == "int8":
        return values.clamp_(min=-127)
    # All ones but the sign is NaN.
    return torch.where(values & 127 == 127, values ^ 1, values).view(torch.float8_e4m3fn)
