"""The plan of a product, and what it comes to for a number of tokens."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from operator import index

import torch

from amber_ext.ops.backends import Decision, cannot_run, choose_kernels, missing_dense_product, require
from amber_ext.ops.choice import measured
from amber_ext.ops.choice.plan import Plan, Times
from amber_ext.ops.choice.prediction import UNTRIED
from amber_ext.ops.dense_products import describe_int8_product
from amber_ext.ops.pattern import Pattern, extra_windows, widened_features
from amber_ext.ops.sparse_gemms import (
    DENSE,
    MASKED_DENSE,
    Problem,
    arch_of,
    are_aligned,
    refusal,
    refusal_of_all,
    without_walk,
)


def plan_for(
    dtype: torch.dtype,
    in_features: int,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    pattern: Pattern,
    rescale: str,
    backend: str,
    allow_unpruned: bool,
) -> Plan:
    """The plan of `linear` and `linear_w8a8` for inputs of this dtype; shapes and dtypes are checked already.

    Raises: as `plan_product`.
    """
    aligned = are_aligned(weight, bias)
    return plan_of(*plan_key(dtype, in_features, weight, aligned, pattern, rescale, backend, allow_unpruned))


def plan_key(
    dtype: torch.dtype,
    in_features: int,
    weight: torch.Tensor,
    aligned: bool,
    pattern: Pattern,
    rescale: str,
    backend: str,
    allow_unpruned: bool,
) -> tuple:
    """What a plan depends on, as constants; how many tokens there are is not in it."""
    # A compiler's symbolic sizes become numbers: a graph is compiled for one weight.
    out_features, columns, in_features = (index(size) for size in (*weight.shape, in_features))
    shape = (out_features, columns, in_features, aligned)
    return (weight.device, dtype, weight.dtype, *shape, str(pattern), rescale, backend, allow_unpruned)


@torch.compiler.assume_constant_result
def plan_of(*key: object) -> Plan:
    """The plan of a `plan_key`. Not traced where a graph is compiled: it asks the device and reads files."""
    return cached_plan(problem_of(*key), *key[-2:])


def problem_of(
    device: torch.device,
    dtype: torch.dtype,
    weight_dtype: torch.dtype,
    out_features: int,
    columns: int,
    in_features: int,
    aligned: bool,
    pattern: str,
    rescale: str,
    *_: object,
) -> Problem:
    """The product of a `plan_key`."""
    shape = (out_features, in_features, columns, aligned)
    return Problem(device, arch_of(device), dtype, weight_dtype, Pattern(pattern), rescale, *shape)


def plan_product(problem: Problem, backend: str = "auto", allow_unpruned: bool = False) -> Plan:
    """What `linear` and `linear_w8a8` run, for every number of tokens.

    Raises:
        ValueError: ``backend`` is unknown, or the weight lacks the copies that an explicit sparse GEMM reads.
        RuntimeError: an explicit backend cannot run this product here.
    """
    if backend == "cutlass":
        return _sparse_as_asked(problem)
    decision = choose_kernels("linear", problem.device, backend)
    if decision.backend == "reference":
        return Plan("reference", decision.reason)
    reason = decision.reason
    if problem.is_8bit:
        missing = missing_dense_product(problem)
        if missing is not None and backend != "auto":
            raise cannot_run(backend, missing)
        if missing is not None:
            return Plan("reference", missing)
        reason = f"{reason}, then {describe_int8_product(problem.device)}"
    if backend != "auto" or decision.backend != "cuda" or problem.is_unpruned:
        return Plan(decision.backend, reason)
    times = Times.of(problem)
    return replace(times.plan(allow_unpruned=allow_unpruned), reason=_no_sparse_gemm(problem, times) or "")


@cache
def cached_plan(problem: Problem, backend: str, allow_unpruned: bool) -> Plan:
    """`plan_product`, computed once; `forget_plans` forgets."""
    return plan_product(problem, backend, allow_unpruned)


def forget_plans() -> None:
    """After new measurements: plans are made anew when they are asked for."""
    cached_plan.cache_clear()
    measured.tuned.cache_clear()


def decide(problem: Problem, plan: Plan, tokens: int) -> Decision:
    """What a plan runs for T tokens, and why.

    Raises:
        RuntimeError: more tokens than the sparse GEMM takes.
    """
    kernel = plan.kernel(tokens)
    backend = {MASKED_DENSE: plan.backend, DENSE: DENSE}.get(kernel, "cutlass")
    if plan.backend != "cuda" or problem.is_unpruned:
        return Decision(backend, plan.reason, kernel)
    times = Times.of(problem)
    for gemm in times.gemms:
        if gemm.name == without_walk(kernel) and (refused := refusal(gemm, problem, tokens)) is not None:
            raise RuntimeError(refused)
    known, source = times.at(tokens)
    if kernel not in known:
        return Decision(backend, plan.reason or "nothing is known of this GPU's speed", kernel)
    ms, dense_ms = known[kernel] * 1e3, known[DENSE] * 1e3
    dense = "dense 8-bit" if problem.is_8bit else "dense"
    compared = f"{source} {ms:.4g} ms, {dense} {dense_ms:.4g} ms at T = {tokens} on {times.device.name}"
    if kernel == DENSE:
        compared = f"not pruned, which allow_unpruned allows: {dense} is fastest; {compared}"
    reason = f"{plan.reason}; {compared}" if plan.reason else compared
    return Decision(backend, reason, kernel, source.split()[0], ms, dense_ms)


def wants_copies(*key: object) -> bool:
    """Whether a layer should keep the copies of `widen_weight`: a sparse GEMM will read them.

    Args:
        key: a `plan_key`, of the weight with or without copies.
    """
    problem, (backend, allow_unpruned) = problem_of(*key), key[-2:]
    if (
        not extra_windows(problem.pattern)
        or problem.device.type != "cuda"
        or backend not in ("auto", "cutlass")
    ):
        return False
    columns = widened_features(problem.in_features, problem.pattern)
    widened = replace(problem, weight_columns=columns, aligned=True)
    try:
        return cached_plan(widened, backend, allow_unpruned).is_sparse
    except RuntimeError:
        return False


def _sparse_as_asked(problem: Problem) -> Plan:
    require("cutlass", "cuda", problem.device)
    times = Times.of(replace(problem, weight_columns=widened_features(problem.in_features, problem.pattern)))
    if not times.gemms:
        raise RuntimeError(_no_sparse_gemm(problem, times))
    if not problem.has_copies:
        raise ValueError(
            f"weight: shape {[problem.out_features, problem.weight_columns]} has no copies for the windows of "
            f"{problem.pattern}; backend 'cutlass' needs widen_weight(weight, '{problem.pattern}')"
        )
    return replace(times.plan(only_sparse=True), reason="asked for")


def _no_sparse_gemm(problem: Problem, times: Times) -> str | None:
    """Why there is no sparse GEMM to choose, or None."""
    if times.entry is None and times.gemms and all(gemm.arch in UNTRIED for gemm in times.gemms):
        return f"kernel: '{times.gemms[0].name}' and the like have run nowhere yet; amber_ext.tune checks them first"
    if times.gemms:
        return None
    if times.entry is not None and times.entry.refused:
        name, why = next(iter(times.entry.refused.items()))
        return f"kernel: '{name}' did not pass its check on this machine: {why}"
    if (refused := refusal_of_all(problem)) is not None:
        return refused
    return f"weight: it has no copies for {problem.pattern} (widen_weight)"
