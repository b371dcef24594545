"""Which implementation runs: a description of the product goes in, a decision comes out.

Backends:
    ``"reference"``: plain PyTorch, on any device; for 8-bit weights with fp64 products.
    ``"cpu"``, ``"cuda"``: the compiled selection kernels, then torch's dense product (masked dense); for 8-bit
    weights an exact int8 product (`amber_ext.ops.dense_products`), or `torch._scaled_mm` for e4m3 on CUDA.
    ``"cutlass"``: on CUDA: prune (and quantise) and compress in one kernel, then a sparse GEMM; 2:4, and with a
    weight from `widen_weight` 4:8, 8:16, 10:16w and 12:16w.
    ``"auto"``: on CUDA what `amber_ext.ops.measurements` says was measured to be fastest for the shape: a sparse GEMM,
    masked dense, or ``"dense"``, which does not prune because that would only cost time. Without a measurement:
    the compiled kernels of x's device, else the reference.

An explicit backend runs or raises. What a sparse GEMM takes is said by its description (`amber_ext.ops.sparse_gemms`),
which comes from the compiled library.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from amber_ext.ops import checks, library, measurements, sparse_gemms
from amber_ext.ops.dense_products import CUDA_MULTIPLE, has_fast_int8
from amber_ext.ops.measurements import DENSE, MASKED_DENSE, NOT_SPARSE
from amber_ext.ops.pattern import Pattern, extra_windows, widened_features
from amber_ext.ops.sparse_gemms import Problem, refusal, refusal_of_all

BACKENDS = ("auto", "cpu", "cuda", "cutlass", "reference")

OLDEST_CUDA_ARCH = 80


@dataclass(frozen=True)
class Decision:
    """What runs, and why.

    Attributes:
        backend: who runs; ``"dense"`` where nothing is pruned because that was measured to be fastest.
        kernel: of a product: ``"masked_dense"``, ``"dense"``, or the name of a sparse GEMM.
        speedup: over torch's dense product of the same dtype, as measured; None where nothing was.
    """

    backend: str
    reason: str
    kernel: str = MASKED_DENSE
    speedup: float | None = None


def choose_kernels(op: str, device: torch.device, backend: str = "auto") -> Decision:
    """The backend of an op that selects: ``"nm_mask"``, ``"nm_prune"``, ``"quantize_activations"``.

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
    _require(backend, backend, device)
    return Decision(backend, "asked for")


def choose_product(problem: Problem, backend: str = "auto") -> Decision:
    """The backend and kernel of `linear` and `linear_w8a8`.

    Raises:
        ValueError: ``backend`` is unknown, or the weight lacks the copies that an explicit sparse GEMM reads.
        RuntimeError: an explicit backend cannot run this product here.
    """
    if backend == "cutlass":
        return _sparse_as_asked(problem)
    decision = choose_kernels("linear", problem.device, backend)
    if decision.backend == "reference":
        return decision
    if problem.is_8bit:
        missing = _missing_dense_product(problem)
        if missing is not None and backend != "auto":
            raise _cannot_run(backend, missing)
        if missing is not None:
            return Decision("reference", missing)
        product = "torch's int8 product" if has_fast_int8(problem.device) else "exact fp32 products (no VNNI)"
        decision = Decision(decision.backend, f"{decision.reason}, then {product}")
    unpruned = problem.pattern.n == problem.pattern.m
    if backend != "auto" or decision.backend != "cuda" or unpruned:
        return decision
    return _fastest_measured(problem)


def wants_copies(
    weight: torch.Tensor, dtype: torch.dtype, pattern: Pattern, rescale: str, backend: str
) -> bool:
    """Whether a layer should keep the copies of `widen_weight`: a sparse GEMM may read them.

    Args:
        weight: ``[N, K]`` on the layer's device.
        dtype: of the layer's inputs.
    """
    if not extra_windows(pattern) or weight.device.type != "cuda" or backend not in ("auto", "cutlass"):
        return False
    out_features, in_features = weight.shape
    columns = widened_features(in_features, pattern)
    problem = Problem(
        weight.device, dtype, weight.dtype, pattern, rescale, 1, out_features, in_features, columns, True
    )
    takers = [gemm.name for gemm in sparse_gemms.SPARSE_GEMMS if refusal(gemm, problem) is None]
    if backend == "cutlass":
        return bool(takers)
    return any(entry.kernel in takers for entry in measurements.covering(**_table_key(problem)))


def _sparse_as_asked(problem: Problem) -> Decision:
    _require("cutlass", "cuda", problem.device)
    takers = [gemm.name for gemm in sparse_gemms.SPARSE_GEMMS if refusal(gemm, problem) is None]
    if not takers:
        raise RuntimeError(refusal_of_all(problem))
    if not problem.has_copies:
        raise ValueError(
            f"weight: shape {[problem.out_features, problem.weight_columns]} has no copies for the windows of "
            f"{problem.pattern}; backend 'cutlass' needs widen_weight(weight, '{problem.pattern}')"
        )
    measured = measurements.find_measurement(**_table_key(problem), tokens=problem.tokens)
    if measured is not None and measured.kernel in takers:
        return Decision("cutlass", "asked for", measured.kernel, measured.speedup)
    return Decision("cutlass", "asked for", takers[0])


def _fastest_measured(problem: Problem) -> Decision:
    measured = measurements.find_measurement(**_table_key(problem), tokens=problem.tokens)
    named = {gemm.name: gemm for gemm in sparse_gemms.SPARSE_GEMMS}
    if measured is None or measured.kernel not in (*NOT_SPARSE, *named):
        return Decision("cuda", "masked dense: nothing was measured for this shape, GPU and build")
    dense = "dense 8-bit" if problem.is_8bit else "dense"
    if measured.kernel == DENSE:
        return Decision(DENSE, f"not pruned: {dense} was fastest in {measured.source}", DENSE)
    reason = f"measured {measured.speedup:.2f}x {dense} in {measured.source}"
    if measured.kernel == MASKED_DENSE:
        return Decision("cuda", reason, speedup=measured.speedup)
    refused = refusal(named[measured.kernel], problem)
    if refused is None and not problem.has_copies:
        refused = f"the weight has no copies for {problem.pattern} (widen_weight)"
    if refused is not None:
        return Decision("cuda", f"masked dense: {refused}")
    return Decision("cutlass", reason, measured.kernel, measured.speedup)


def _table_key(problem: Problem) -> dict[str, object]:
    return {
        "arch": problem.arch,
        "pattern": str(problem.pattern),
        "dtype": problem.table_dtype,
        "out_features": problem.out_features,
        "in_features": problem.in_features,
    }


def _missing_kernels(device: torch.device) -> str | None:
    """Why there are no compiled kernels for this device, or None."""
    if library.LOAD_ERROR is not None:
        return f"the op library is {library.LOAD_ERROR}"
    if device.type not in library.DEVICES:
        return f"the op library has no {device.type} kernels"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < divmod(OLDEST_CUDA_ARCH, 10):
        return "the CUDA kernels need compute capability 8.0 or newer"
    return None


def _missing_dense_product(problem: Problem) -> str | None:
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


def _require(backend: str, device_type: str, device: torch.device) -> None:
    missing = _missing_kernels(device) if device.type == device_type else f"x is on {device.type}"
    if missing is not None:
        raise _cannot_run(backend, missing)


def _cannot_run(backend: str, why: str) -> RuntimeError:
    return RuntimeError(f"backend: {backend!r} cannot run here: {why}; allowed: 'auto', 'reference'")
