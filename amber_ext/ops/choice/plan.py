"""`Plan`: which kernel runs for which number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amber_ext.ops import sparse_gemms
from amber_ext.ops.choice import devices, measured, prediction
from amber_ext.ops.choice.devices import Device
from amber_ext.ops.choice.measured import Entry
from amber_ext.ops.sparse_gemms import (
    DENSE,
    MASKED_DENSE,
    Problem,
    SparseGemm,
    refusal,
    walks_of,
    without_walk,
)

# Numbers of tokens that the fastest kernel is looked for at; where two neighbours differ, also between them.
GRID = tuple(sorted({size * 2**power for power in range(17) for size in (2, 3)} | {1}))

# A kernel takes over only where it is faster by this share than the one for fewer tokens: times are not known better,
# and a plan should be short.
MARGIN = 0.05


@dataclass(frozen=True)
class Plan:
    """What a layer runs.

    Attributes:
        backend: who runs what is not a sparse GEMM: ``"cpu"``, ``"cuda"`` or ``"reference"``.
        reason: why, where there was nothing to choose.
        kernels, thresholds: ``kernels[i]`` for T < ``thresholds[i]``, the last one from there on. Each is
            `MASKED_DENSE`, `DENSE` or the name of a sparse GEMM, which may have a walk behind it (`WALKS`).
    """

    backend: str
    reason: str = ""
    kernels: tuple[str, ...] = (MASKED_DENSE,)
    thresholds: tuple[int, ...] = ()

    def kernel(self, tokens: int) -> str:
        """What runs for T tokens, as the op picks it (csrc/torch/kernel_choice.h)."""
        return self.kernels[sum(tokens >= threshold for threshold in self.thresholds)]

    @property
    def is_sparse(self) -> bool:
        """Whether a sparse GEMM runs for some number of tokens."""
        return any(kernel not in (MASKED_DENSE, DENSE) for kernel in self.kernels)


@dataclass(frozen=True)
class Times:
    """What a product's kernels take: the measured times where there are some, else the predicted ones."""

    device: Device
    problem: Problem
    gemms: tuple[SparseGemm, ...]
    entry: Entry | None
    source: str

    @classmethod
    def of(cls, problem: Problem) -> Times:
        """Of the sparse GEMMs of this build that take the product, and of the dense ways to compute it."""
        device = devices.device_of(problem.device)
        entry, source = measured.find(device, problem)
        refused = {} if entry is None else entry.refused
        gemms = tuple(
            gemm
            for gemm in sparse_gemms.SPARSE_GEMMS
            if gemm.name not in refused and refusal(gemm, problem) is None and problem.has_copies
        )
        return cls(device, problem, gemms, entry, source)

    def at(self, tokens: int) -> tuple[dict[str, float], str]:
        """Seconds by kernel, and how they are known; empty where nothing is known."""
        if self.entry is not None and (ms := self.entry.at(tokens)):
            names = {MASKED_DENSE, DENSE, *(gemm.name for gemm in self.gemms)}
            refused = self.entry.refused
            usable = (name for name in ms if without_walk(name) in names and name not in refused)
            return {name: ms[name] / 1e3 for name in usable}, self.source
        checked = {} if self.entry is None else {name for ms in self.entry.ms.values() for name in ms}
        tried = [gemm for gemm in self.gemms if gemm.arch not in prediction.UNTRIED or gemm.name in checked]
        return prediction.times(self.device, self.problem, tried, tokens) or {}, "predicted"

    def plan(self, *, allow_unpruned: bool = False, only_sparse: bool = False) -> Plan:
        """The fastest kernels with the same result. One that is within `MARGIN` of them goes on; masked dense begins.

        Args:
            allow_unpruned: also `DENSE`, whose result is another one.
            only_sparse: sparse GEMMs alone; there must be one.
        """
        # Walks are known by measurement alone.
        sparse = [name for gemm in self.gemms for name in (gemm.name, *walks_of(gemm))]
        allowed = sparse if only_sparse else [MASKED_DENSE, *sparse, *([DENSE] if allow_unpruned else [])]

        def fastest(tokens: int, before: str) -> str:
            times, _ = self.at(tokens)
            known = [name for name in allowed if name in times] or allowed[:1]
            best = min(known, key=lambda name: times.get(name, 0.0))
            close = before in known and times.get(before, 0.0) <= times.get(best, 0.0) * (1 + MARGIN)
            return before if close else best

        measured_at = [] if self.entry is None else [*self.entry.ms]
        # Behind the last measured number of tokens the heuristic goes on.
        behind = [max(measured_at) + 1] if measured_at else []
        kernels, thresholds = steps(fastest, allowed[0], sorted({*GRID, *measured_at, *behind}))
        return Plan("cuda", kernels=kernels, thresholds=thresholds)


def steps(
    fastest: Callable[[int, str], str], first: str, tokens: Sequence[int]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Kernels and thresholds of a function that takes tokens, and the kernel for fewer of them, to the kernel.

    Looked at are these tokens, and those between where it changes. ``first`` is what stands before them.
    """
    kernels, thresholds, low = [fastest(tokens[0], first)], [], tokens[0]
    for high in tokens[1:]:
        while fastest(high, kernels[-1]) != kernels[-1]:
            last, changed = low, high
            while changed - last > 1:
                middle = (last + changed) // 2
                same = fastest(middle, kernels[-1]) == kernels[-1]
                last, changed = (middle, changed) if same else (last, middle)
            kernels.append(fastest(changed, kernels[-1]))
            thresholds.append(changed)
            low = changed
        low = high
    return tuple(kernels), tuple(thresholds)
