"""The public functions on tensors: `nm_mask`, `nm_prune`, `linear`, `linear_w8a8`.

``backend`` is chosen by `amber_ext.ops.backends`, whose text says what each is.
"""

from __future__ import annotations

import torch

from amber_ext.ops import checks, library, reference
from amber_ext.ops.backends import Decision, choose_kernels
from amber_ext.ops.choice.plan import Plan
from amber_ext.ops.choice.products import decide, plan_for, plan_key, plan_of, problem_of
from amber_ext.ops.dense_products import dense_linear, masked_dense_w8a8
from amber_ext.ops.pattern import UNPRUNED, Pattern
from amber_ext.ops.sparse_gemms import MASKED_DENSE, are_aligned


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
        backend: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"reference"``.

    Returns:
        bool ``[..., K]``, exactly N True in each aligned group of M: the N best, for a windowed pattern the
        best set that fits. Equal scores: the lower index wins. NaN ranks above everything, then Inf.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = _checked(x, pattern, scale)
    if choose_kernels("nm_mask", x.device, backend).backend == "reference":
        checks.check_factor_values("scale", scale)
        return reference.nm_mask(x, pattern, scale)
    return checks.run(torch.ops.amber.nm_mask, x, scale, str(pattern), scale=scale)


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
        ``[..., K]`` of x's dtype. Differentiation through it raises.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = _checked(x, pattern, scale)
    checks.one_of("rescale", rescale, checks.RESCALES)
    library.forbid_tangents(x, scale)
    if choose_kernels("nm_prune", x.device, backend).backend == "reference":
        checks.check_factor_values("scale", scale)
        return library.ForbidBackward.apply(reference.nm_prune, x, pattern, scale, rescale)
    return checks.run(torch.ops.amber.nm_prune, x, scale, str(pattern), rescale, scale=scale)


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    pattern: str | Pattern,
    scale: torch.Tensor | None = None,
    rescale: str = "none",
    backend: str = "auto",
    allow_unpruned: bool = False,
    plan: Plan | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """``Y = nm_prune(x) Wᵀ + b``, the linear layer on pruned activations.

    Args:
        x, pattern, scale, rescale: as for `nm_prune`.
        backend: those of `nm_prune`, and ``"cutlass"``.
        weight: ``[N, K]`` of x's dtype and device, or ``[N, K']`` as `widen_weight` makes it for the pattern.
            It is not copied.
        bias: ``[N]`` of x's dtype and device, or None.
        allow_unpruned: under ``"auto"`` on a GPU x may stay as it is where that is fastest; `explain` tells.
        plan: what a layer that holds one passes; None makes one for these tensors.
        out: ``[T, N]`` of x's dtype and device for an x ``[T, K]``: where Y is written, for example a slice of the
            columns of a wider tensor; None is a new tensor.

    Returns:
        ``[..., N]`` of x's dtype. Differentiation through it raises.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = Pattern(pattern)
    _check_product(x, weight, bias, pattern, scale, rescale)
    if plan is None:
        plan = plan_for(x.dtype, x.shape[-1], weight, bias, pattern, rescale, backend, allow_unpruned)
    library.forbid_tangents(x, weight, bias, scale)
    checks.check_out(out, x, weight)
    columns = weight.narrow(1, 0, x.shape[-1])
    if plan.backend == "reference":
        checks.check_factor_values("scale", scale)
        function = reference.linear
        y = library.ForbidBackward.apply(function, x, columns, bias, pattern, scale, rescale)
    elif out is not None and plan.kernels == (MASKED_DENSE,):
        return dense_linear(nm_prune(x, pattern, scale, rescale, plan.backend), columns, bias, out)
    else:
        plan_arguments = (list(plan.kernels), list(plan.thresholds))
        arguments = (x, weight, bias, scale, str(pattern), rescale, *plan_arguments)
        y = checks.run(torch.ops.amber.linear, *arguments, scale=scale)
    return y if out is None else out.copy_(y)


def linear_w8a8(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    pattern: str | Pattern = UNPRUNED,
    scale: torch.Tensor | None = None,
    smooth: torch.Tensor | None = None,
    rescale: str = "none",
    backend: str = "auto",
    allow_unpruned: bool = False,
    plan: Plan | None = None,
) -> torch.Tensor:
    """``Y = Q(x) Wᵀ · token_scale · weight_scale + b``, with Q as `quantize_activations` does it.

    Args:
        x, pattern, scale, smooth, rescale: as for `quantize_activations`.
        weight: ``[N, K]``, int8 or float8_e4m3fn, as `quantize_weight` makes it, or widened by `widen_weight`;
            not copied.
        weight_scale: fp32 ``[N]``.
        bias: ``[N]`` of x's dtype, or None.
        backend, allow_unpruned, plan: those of `linear`.

    Returns:
        ``[..., N]`` of x's dtype. int8 products are exact in int32; scales and bias are applied in fp32.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = Pattern(pattern)
    checks.check_tensor("weight_scale", weight_scale)
    checks.check_factors("smooth", smooth, x)
    _check_product(x, weight, bias, pattern, scale, rescale, weight_scale)
    if plan is None:
        plan = plan_for(x.dtype, x.shape[-1], weight, bias, pattern, rescale, backend, allow_unpruned)
    library.forbid_tangents(x, weight_scale, bias, scale, smooth)
    if x.numel() == 0 or weight.shape[0] == 0:
        y = x.new_zeros((*x.shape[:-1], weight.shape[0]))
        return y if bias is None else y + bias
    columns = weight.narrow(1, 0, x.shape[-1])
    if plan.backend == "reference":
        checks.check_factor_values("scale", scale)
        checks.check_factor_values("smooth", smooth)
        function = reference.linear_w8a8
        return library.ForbidBackward.apply(
            function, x, columns, weight_scale, bias, pattern, smooth, scale, rescale
        )
    if plan.kernels == (MASKED_DENSE,):
        return masked_dense_w8a8(x, columns, weight_scale, bias, smooth, scale, str(pattern), rescale)
    kernels, thresholds = list(plan.kernels), list(plan.thresholds)
    return torch.ops.amber.linear_w8a8(
        x, weight, weight_scale, bias, smooth, scale, str(pattern), rescale, kernels, thresholds
    )


def decide_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    pattern: str | Pattern,
    scale: torch.Tensor | None,
    rescale: str,
    backend: str,
    weight_scale: torch.Tensor | None = None,
    allow_unpruned: bool = False,
    plan: Plan | None = None,
) -> Decision:
    """What `linear`, or with ``weight_scale`` `linear_w8a8`, would run, after its checks; nothing is computed.

    Args, raises: as these.
    """
    pattern = Pattern(pattern)
    _check_product(x, weight, bias, pattern, scale, rescale, weight_scale)
    aligned = are_aligned(weight, bias)
    key = plan_key(x.dtype, x.shape[-1], weight, aligned, pattern, rescale, backend, allow_unpruned)
    return decide(problem_of(*key), plan or plan_of(*key), x.shape[:-1].numel())


def _check_product(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    pattern: Pattern,
    scale: torch.Tensor | None,
    rescale: str,
    weight_scale: torch.Tensor | None = None,
) -> None:
    _checked(x, pattern, scale)
    checks.one_of("rescale", rescale, checks.RESCALES)
    if weight_scale is None:
        checks.check_linear(x, weight, bias, pattern)
    else:
        checks.check_linear_w8a8(x, weight, weight_scale, bias, pattern)


def _checked(x: torch.Tensor, pattern: str | Pattern, scale: torch.Tensor | None) -> Pattern:
    pattern = Pattern(pattern)
    checks.check_input(x, pattern)
    checks.check_factors("scale", scale, x)
    return pattern
