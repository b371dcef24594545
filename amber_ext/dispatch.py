"""Which implementation runs: the public functions, and the one place that chooses a backend.

Backends:
    ``"reference"``: plain PyTorch, on any device.
    ``"cpu"``, ``"cuda"``: the compiled selection kernels, then torch's dense product (masked dense).
    ``"cutlass"``: `linear` alone, fp16 and bf16, on CUDA: fused prune and compress, then a sparse GEMM; 2:4, and
    with a weight from `widen_weight` 4:8, 8:16, 10:16w and 12:16w.
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
from amber_ext.dispatch_table import (
    DENSE,
    MASKED_DENSE,
    NOT_SPARSE,
    Measurement,
    find_measurement,
    is_sparse_ever_fastest,
)
from amber_ext.pattern import Pattern
from amber_ext.windows import extra_windows, widened_features

BACKENDS = ("auto", "cpu", "cuda", "cutlass", "reference")

# The op's argument `kernel` is MASKED_DENSE, the name of a sparse GEMM, or this for the build's default one.
SPARSE_GEMM = "sparse_gemm"

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
        return choose_cutlass(x, weight, pattern)
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
    if measured.kernel == MASKED_DENSE:
        return Decision("cuda", f"measured {measured.speedup:.2f}x dense in {measured.source}")
    if not has_copies(x, weight, pattern):
        return Decision("cuda", f"masked dense: the weight has no copies for {pattern} (widen_weight)")
    return Decision(
        "cutlass", f"measured {measured.speedup:.2f}x dense in {measured.source}", measured.kernel
    )


def choose_cutlass(x: torch.Tensor, weight: torch.Tensor, pattern: Pattern) -> Decision:
    """The sparse GEMM that runs when one is asked for.

    Raises:
        RuntimeError: x is not on a GPU that has them. ValueError: the weight has no copies for the pattern.
    """
    require("cutlass", "cuda", x)
    if not has_copies(x, weight, pattern):
        raise ValueError(
            f"weight: shape {list(weight.shape)} has no copies for the windows of {pattern}; "
            f"backend 'cutlass' needs widen_weight(weight, '{pattern}')"
        )
    measured = measurement(x, weight, pattern)
    known = measured is not None and measured.kernel not in NOT_SPARSE
    return Decision("cutlass", "asked for", measured.kernel if known else SPARSE_GEMM)


def has_copies(x: torch.Tensor, weight: torch.Tensor, pattern: Pattern) -> bool:
    """Whether the weight is as wide as the sparse GEMMs of this pattern need it; True where none can run."""
    return weight.shape[1] == (widened_features(x.shape[-1], pattern) or weight.shape[1])


def wants_copies(weight: torch.Tensor, dtype: torch.dtype, pattern: Pattern, backend: str) -> bool:
    """Whether a layer should keep the copies of `widen_weight`: a sparse GEMM may read them.

    Args:
        weight: ``[N, K]`` on the layer's device.
        dtype: of the layer's inputs.
    """
    if not extra_windows(pattern) or weight.device.type != "cuda" or backend not in ("auto", "cutlass"):
        return False
    if backend == "cutlass":
        return True
    major, minor = torch.cuda.get_device_capability(weight.device)
    return is_sparse_ever_fastest(
        arch=major * 10 + minor,
        pattern=str(pattern),
        dtype=_table_dtype(dtype, weight),
        out_features=weight.shape[0],
        in_features=weight.shape[1],
    )


def measurement(x: torch.Tensor, weight: torch.Tensor, pattern: Pattern) -> Measurement | None:
    """What was measured for this product, if this build can run it."""
    major, minor = torch.cuda.get_device_capability(x.device)
    out_features, in_features = weight.shape[0], x.shape[-1]
    measured = find_measurement(
        arch=major * 10 + minor,
        pattern=str(pattern),
        dtype=_table_dtype(x.dtype, weight),
        out_features=out_features,
        in_features=in_features,
        tokens=x.numel() // in_features if in_features else 0,
    )
    if measured is None or measured.kernel in NOT_SPARSE or ops.SPARSE_GEMMS is None:
        return measured
    return measured if measured.kernel in ops.SPARSE_GEMMS else None


def _table_dtype(dtype: torch.dtype, weight: torch.Tensor) -> str:
    """For example ``"bfloat16"``, or ``"int8 bfloat16"`` for an 8-bit weight and a bf16 input."""
    names = [str(name).removeprefix("torch.") for name in dict.fromkeys((weight.dtype, dtype))]
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
        pattern: for example ``"2:4"`` or ``"10:16w"`` (`Pattern`).
        scale: fp32 ``[K]``, the channel scale c of the score ``|x| * c``; finite and > 0. None is 1.
        backend: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"reference"`` (see the module's text).

    Returns:
        bool ``[..., K]``, exactly N True in each aligned group of M: the N best, for a windowed pattern the
        best set that fits. Equal scores: the lower index wins. NaN ranks above everything, then Inf.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = _checked(x, pattern, scale)
    if choose("nm_mask", x, backend).backend == "reference":
        checks.check_factor_values("scale", scale)
        return reference.nm_mask(x, pattern, scale)
    return torch.ops.amber.nm_mask(x, scale, str(pattern))


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
    return torch.ops.amber.nm_prune(x, scale, str(pattern), rescale)


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
        weight: ``[N, K]`` of x's dtype and device, or ``[N, K']`` as `widen_weight` makes it for the pattern.
            It is not copied.
        bias: ``[N]`` of x's dtype and device, or None.

    Returns:
        ``[..., N]`` of x's dtype. A backward through it raises. Under ``"auto"`` on a GPU, shapes for
        which dense was measured to be fastest are not pruned; `explain` tells.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = _checked(x, pattern, scale)
    checks.one_of("rescale", rescale, checks.RESCALES)
    checks.check_linear(x, weight, bias, pattern)
    decision = choose_linear(x, weight, pattern, rescale, backend)
    if decision.backend != "cutlass":
        weight = weight[:, : x.shape[-1]]
    if decision.backend == "reference":
        checks.check_factor_values("scale", scale)
        return ops.ForbidBackward.apply(reference.linear, x, weight, bias, pattern, scale, rescale)
    if decision.backend == DENSE:
        return F.linear(x, weight, bias)
    return torch.ops.amber.linear(x, weight, bias, scale, str(pattern), rescale, decision.kernel)
