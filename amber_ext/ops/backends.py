"""Which implementation runs: a description of the product goes in, a decision comes out.

Backends:
    ``"reference"``: plain PyTorch, on any device; for 8-bit weights with fp64 products.
    ``"cpu"``, ``"cuda"``: the compiled selection kernels, then torch's dense product (masked dense); for 8-bit
    weights an exact int8 product (`amber_ext.ops.dense_products`), or `torch._scaled_mm` for e4m3 on CUDA.
    ``"cutlass"``: on CUDA: prune (and quantise) and compress in one kernel, then a sparse GEMM; 2:4, and with a
    weight from `widen_weight` 4:8, 8:16, 10:16w and 12:16w.
    ``"auto"``: on CUDA the fastest of masked dense and the sparse GEMMs that take the product: as measured, else as
    predicted (`amber_ext.ops.choice`). All of them compute the same. With ``allow_unpruned`` also ``"dense"``, which
    does not prune where that would only cost time. Elsewhere the compiled kernels of x's device, else the reference.

An explicit backend runs or raises. What a sparse GEMM takes is said by its description (`amber_ext.ops.sparse_gemms`),
which comes from the compiled library.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from amber_ext.ops import checks, library
from amber_ext.ops.dense_products import CUDA_MULTIPLE
from amber_ext.ops.sparse_gemms import MASKED_DENSE, Problem, arch_of

BACKENDS = ("auto", "cpu", "cuda", "cutlass", "reference")

OLDEST_CUDA_ARCH = 80


@dataclass(frozen=True)
class Decision:
    """What runs, and why.

    Attributes:
        backend: who runs; ``"dense"`` where nothing is pruned.
        kernel: of a product: ``"masked_dense"``, ``"dense"``, or the name of a sparse GEMM.
        source: ``"measured"`` or ``"predicted"``: how the times are known; None where they are not.
        ms, dense_ms: of this kernel, and of the layer that is not pruned, in the same dtypes.
    """

    backend: str
    reason: str
    kernel: str = MASKED_DENSE
    source: str | None = None
    ms: float | None = None
    dense_ms: float | None = None

    @property
    def speedup(self) -> float | None:
        """Over the layer that is not pruned; None where times are not known."""
        return None if self.ms is None else self.dense_ms / self.ms


def choose_kernels(op: str, device: torch.device, backend: str = "auto") -> Decision:
    """The backend of an op that selects: ``"nm_mask"``, ``"nm_prune"``, ``"quantize_activations"``, or a fused producer's name.

    Raises:
        ValueError: ``backend`` is unknown. RuntimeError: an explicit backend cannot run here.
    """
    checks.one_of("backend", backend, BACKENDS)
    if backend == "reference":
        return Decision("reference", "asked for")
    if backend == "auto":
        missing = _missing_kernels(device)
        if missing is not None:
            return Decision("reference", missing)
        return Decision(device.type, f"the compiled {device.type} kernels")
    if backend == "cutlass":
        raise RuntimeError(f"backend: 'cutlass' has no {op}; it runs linear alone")
    require(backend, backend, device)
    return Decision(backend, "asked for")


def _missing_kernels(device: torch.device) -> str | None:
    """Why there are no compiled kernels for this device, or None."""
    if library.LOAD_ERROR is not None:
        return f"the op library is {library.LOAD_ERROR}"
    if device.type not in library.DEVICES:
        return f"the op library has no {device.type} kernels"
    if device.type == "cuda" and arch_of(device) < OLDEST_CUDA_ARCH:
        return "the CUDA kernels need compute capability 8.0 or newer"
    return None


def missing_dense_product(problem: Problem) -> str | None:
    """Why torch has no dense 8-bit product for this here, or None."""
    if problem.device.type == "cpu":
        return None if problem.operands == "int8" else "torch has no e4m3 product on the CPU"
    multiple = CUDA_MULTIPLE if problem.operands == "int8" else 2 * CUDA_MULTIPLE
    if problem.out_features % multiple or problem.in_features % multiple:
        sizes = [problem.out_features, problem.in_features]
        return f"torch's 8-bit products need N and K to be multiples of {multiple}, not {sizes}"
    if problem.operands == "e4m3" and problem.arch < 89:
        return "e4m3 products need compute capability 8.9 or newer"
    return None


def require(backend: str, device_type: str, device: torch.device) -> None:
    """Raises RuntimeError where an explicit backend has no kernels for the device."""
    missing = _missing_kernels(device) if device.type == device_type else f"x is on {device.type}"
    if missing is not None:
        raise cannot_run(backend, missing)


def cannot_run(backend: str, why: str) -> RuntimeError:
    """The error for an explicit backend."""
    return RuntimeError(f"backend: {backend!r} cannot run here: {why}; allowed: 'auto', 'reference'")
