"""Which implementation runs: the public functions, and the one place that chooses a backend.

Backends: ``"cpu"`` (the compiled op library's CPU kernels), ``"reference"`` (plain PyTorch, any
device), ``"auto"`` (the fastest that is there). An explicit backend runs or raises.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from amber_ext import checks, ops, reference
from amber_ext.pattern import Pattern

BACKENDS = ("auto", "cpu", "reference")


@dataclass(frozen=True)
class Decision:
    """The backend that runs, and why it was chosen."""

    backend: str
    reason: str


def choose(op: str, x: torch.Tensor, backend: str = "auto") -> Decision:
    """The backend for ``op`` on x.

    Raises:
        ValueError: ``backend`` is unknown.
        RuntimeError: an explicit backend cannot run here.
    """
    checks.one_of("backend", backend, BACKENDS)
    if backend == "reference":
        return Decision("reference", "asked for")
    device = x.device.type
    reason = None
    if ops.LOAD_ERROR is not None:
        reason = f"the op library is {ops.LOAD_ERROR}"
    elif device != "cpu":
        reason = f"there is no {device} kernel in this version"
    if backend == "cpu":
        if reason is not None:
            raise RuntimeError(f"backend: 'cpu' cannot run here: {reason}; allowed: 'auto', 'reference'")
        return Decision("cpu", "asked for")
    if reason is not None:
        return Decision("reference", reason)
    return Decision("cpu", "the compiled CPU kernel is the fastest for a CPU tensor")


def _checked(x: torch.Tensor, pattern: str | Pattern, scale: torch.Tensor | None) -> Pattern:
    pattern = Pattern(pattern)
    checks.check_input(x, pattern)
    checks.check_scale(scale, x)
    return pattern


def nm_mask(
    x: torch.Tensor,
    pattern: str | Pattern,
    scale: torch.Tensor | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """Which entries of each token survive N:M pruning (arXiv 2508.02128, section 3).

    Args:
        x: ``[..., K]``, float32, float16 or bfloat16; K a multiple of M; any leading shape.
        pattern: for example ``"2:4"``.
        scale: fp32 ``[K]``, the channel scale c of the score ``|x| * c``; finite and > 0. None is 1.
        backend: ``"auto"``, ``"cpu"`` or ``"reference"``.

    Returns:
        bool ``[..., K]``, exactly N True in each aligned group of M. Equal scores: the lower index
        wins. NaN ranks above everything, then Inf.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = _checked(x, pattern, scale)
    if choose("nm_mask", x, backend).backend == "reference":
        checks.check_scale_values(scale)
        return reference.nm_mask(x, pattern, scale)
    return torch.ops.amber.nm_mask(x, scale, pattern.n, pattern.m)


def nm_prune(
    x: torch.Tensor,
    pattern: str | Pattern,
    scale: torch.Tensor | None = None,
    rescale: str = "none",
    backend: str = "auto",
) -> torch.Tensor:
    """x with every entry that `nm_mask` drops set to +0.

    Args:
        x, pattern, scale, backend: as for `nm_mask`.
        rescale: ``"none"`` (the paper), or ``"variance"``: each token's survivors are multiplied by
            ``sqrt(var(token) / var(pruned token))``, population variances (1 where either is 0).

    Returns:
        ``[..., K]`` of x's dtype. A backward through it raises.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = _checked(x, pattern, scale)
    checks.one_of("rescale", rescale, checks.RESCALES)
    if choose("nm_prune", x, backend).backend == "reference":
        checks.check_scale_values(scale)
        return ops.ForbidBackward.apply(reference.nm_prune, x, pattern, scale, rescale)
    return torch.ops.amber.nm_prune(x, scale, pattern.n, pattern.m, rescale)


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    pattern: str | Pattern,
    scale: torch.Tensor | None = None,
    rescale: str = "none",
    backend: str = "auto",
) -> torch.Tensor:
    """``Y = nm_prune(x) Wᵀ + b``, the linear layer on pruned activations.

    Args:
        x, pattern, scale, rescale, backend: as for `nm_prune`.
        weight: ``[N, K]`` of x's dtype and device. It is not copied.
        bias: ``[N]`` of x's dtype and device, or None.

    Returns:
        ``[..., N]`` of x's dtype. A backward through it raises.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = _checked(x, pattern, scale)
    checks.one_of("rescale", rescale, checks.RESCALES)
    checks.check_linear(x, weight, bias)
    if choose("linear", x, backend).backend == "reference":
        checks.check_scale_values(scale)
        return ops.ForbidBackward.apply(reference.linear, x, weight, bias, pattern, scale, rescale)
    return torch.ops.amber.linear(x, weight, bias, scale, pattern.n, pattern.m, rescale)
