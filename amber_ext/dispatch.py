"""Which implementation runs: the public functions, and the one place that chooses a backend.

Backends:
    ``"reference"``: plain PyTorch, on any device.
    ``"cpu"``, ``"cuda"``: the compiled selection kernels, then torch's dense product (masked dense).
    ``"cutlass"``: `linear` alone, 2:4, fp16 and bf16, on CUDA: fused prune and compress, then a sparse GEMM.
    ``"auto"``: on CUDA what `dispatch_table.json` says was measured to be fastest for the shape: a sparse
    GEMM, masked dense, or ``"dense"``, which does not prune because that would only cost time. Without a
    measurement: the compiled kernels of x's device, else the reference.

An explicit backend runs or raises.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from amber_ext import checks, ops, reference
from amber_ext.dispatch_table import Measurement, find_measurement
from amber_ext.pattern import Pattern

BACKENDS = ("auto", "cpu", "cuda", "cutlass", "reference")

# Values of the op's argument `kernel`: prune and dense product, or the build's default sparse GEMM. The
# names of single sparse GEMMs are allowed too. DENSE is the table's word for not pruning.
MASKED_DENSE = "masked_dense"
SPARSE_GEMM = "sparse_gemm"
DENSE = "dense"

OLDEST_CUDA_ARCH = (8, 0)


@dataclass(frozen=True)
class Decision:
    """The backend that runs, why it was chosen, and the kernel of `linear`."""

    backend: str
    reason: str
    kernel: str = MASKED_DENSE


def _missing(device: torch.device) -> str | None:
    """Why there are no compiled kernels for this device, or None."""
    if ops.LOAD_ERROR is not None:
        return f"the op library is {ops.LOAD_ERROR}"
    if device.type not in ops.DEVICES:
        return f"the op library has no {device.type} kernels"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < OLDEST_CUDA_ARCH:
        return "the CUDA kernels need compute capability 8.0 or newer"
    return None


def require(backend: str, device_type: str, x: torch.Tensor) -> None:
    """Raises RuntimeError unless x is on that device type and has compiled kernels there."""
    missing = _missing(x.device) if x.device.type == device_type else f"x is on {x.device.type}"
    if missing is not None:
        raise RuntimeError(f"backend: {backend!r} cannot run here: {missing}; allowed: 'auto', 'reference'")


def choose(op: str, x: torch.Tensor, backend: str = "auto") -> Decision:
    """The backend of ``"nm_mask"`` and ``"nm_prune"``, and of `linear` when no sparse GEMM runs.

    Raises:
        ValueError: ``backend`` is unknown.
        RuntimeError: an explicit backend cannot run here.
    """
    checks.one_of("backend", backend, BACKENDS)
    if backend == "reference":
        return Decision("reference", "asked for")
    if backend == "auto":
        missing = _missing(x.device)
        if missing is not None:
            return Decision("reference", missing)
        return Decision(x.device.type, f"the compiled {x.device.type} kernels")
    if backend == "cutlass":
        raise RuntimeError(f"backend: 'cutlass' has no {op}; it runs linear alone")
    require(backend, backend, x)
    return Decision(backend, "asked for")


def choose_linear(
    x: torch.Tensor, weight: torch.Tensor, pattern: Pattern, rescale: str = "none", backend: str = "auto"
) -> Decision:
    """The backend and kernel of `linear`.

    Raises: as `choose`.
    """
    if backend == "cutlass":
        require("cutlass", "cuda", x)
        measured = measurement(x, weight, pattern)
        known = measured is not None and measured.kernel not in (MASKED_DENSE, DENSE)
        return Decision("cutlass", "asked for", measured.kernel if known else SPARSE_GEMM)
    decision = choose("linear", x, backend)
    if backend != "auto" or decision.backend != "cuda":
        return decision
    if rescale != "none":
        return Decision("cuda", "masked dense: the sparse GEMM does not rescale")
    measured = measurement(x, weight, pattern)
    if measured is None:
        return Decision("cuda", "masked dense: nothing was measured for this shape, GPU and build")
    if measured.kernel == DENSE:
        return Decision(DENSE, f"not pruned: dense was fastest in {measured.source}", DENSE)
    backend = "cuda" if measured.kernel == MASKED_DENSE else "cutlass"
    return Decision(backend, f"measured {measured.speedup:.2f}x dense in {measured.source}", measured.kernel)


def measurement(x: torch.Tensor, weight: torch.Tensor, pattern: Pattern) -> Measurement | None:
    """What was measured for this product, if this build can run it."""
    major, minor = torch.cuda.get_device_capability(x.device)
    out_features, in_features = weight.shape
    measured = find_measurement(
        arch=major * 10 + minor,
        pattern=str(pattern),
        dtype=_table_dtype(x, weight),
        out_features=out_features,
        in_features=in_features,
        tokens=x.numel() // in_features if in_features else 0,
    )
    if measured is None or measured.kernel in (MASKED_DENSE, DENSE) or ops.SPARSE_GEMMS is None:
        return measured
    return measured if measured.kernel in ops.SPARSE_GEMMS else None


def _table_dtype(x: torch.Tensor, weight: torch.Tensor) -> str:
    """For example ``"bfloat16"``, or ``"int8 bfloat16"`` for an 8-bit weight and a bf16 input."""
    names = [str(dtype).removeprefix("torch.") for dtype in dict.fromkeys((weight.dtype, x.dtype))]
    return " ".join(names)


def _checked(x: torch.Tensor, pattern: str | Pattern, scale: torch.Tensor | None) -> Pattern:
    pattern = Pattern(pattern)
    checks.check_input(x, pattern)
    checks.check_factors("scale", scale, x)
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
        backend: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"reference"`` (see the module's text).

    Returns:
        bool ``[..., K]``, exactly N True in each aligned group of M. Equal scores: the lower index
        wins. NaN ranks above everything, then Inf.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = _checked(x, pattern, scale)
    if choose("nm_mask", x, backend).backend == "reference":
        checks.check_factor_values("scale", scale)
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
        checks.check_factor_values("scale", scale)
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
        x, pattern, scale, rescale: as for `nm_prune`.
        backend: those of `nm_prune`, and ``"cutlass"``.
        weight: ``[N, K]`` of x's dtype and device. It is not copied.
        bias: ``[N]`` of x's dtype and device, or None.

    Returns:
        ``[..., N]`` of x's dtype. A backward through it raises. Under ``"auto"`` on a GPU, shapes for
        which dense was measured to be fastest are not pruned; `explain` tells.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = _checked(x, pattern, scale)
    checks.one_of("rescale", rescale, checks.RESCALES)
    checks.check_linear(x, weight, bias)
    decision = choose_linear(x, weight, pattern, rescale, backend)
    if decision.backend == "reference":
        checks.check_factor_values("scale", scale)
        return ops.ForbidBackward.apply(reference.linear, x, weight, bias, pattern, scale, rescale)
    if decision.backend == DENSE:
        return F.linear(x, weight, bias)
    return torch.ops.amber.linear(x, weight, bias, scale, pattern.n, pattern.m, rescale, decision.kernel)
