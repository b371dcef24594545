"""The public functions on tensors: `nm_mask`, `nm_prune`, `linear`, `linear_w8a8`.

``backend`` is chosen by `amber_ext.ops.backends`, whose text says what each is.
"""

from __future__ import annotations

import torch

from amber_ext.ops import checks, library, reference
from amber_ext.ops.backends import Decision, choose_kernels, choose_product
from amber_ext.ops.dense_products import dense_linear, int8_product
from amber_ext.ops.measurements import DENSE, MASKED_DENSE
from amber_ext.ops.pattern import UNPRUNED, Pattern
from amber_ext.ops.sparse_gemms import problem_of


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
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """``Y = nm_prune(x) Wᵀ + b``, the linear layer on pruned activations.

    Args:
        x, pattern, scale, rescale: as for `nm_prune`.
        backend: those of `nm_prune`, and ``"cutlass"``.
        weight: ``[N, K]`` of x's dtype and device, or ``[N, K']`` as `widen_weight` makes it for the pattern.
            It is not copied.
        bias: ``[N]`` of x's dtype and device, or None.
        out: ``[T, N]`` of x's dtype and device for an x ``[T, K]``: where Y is written, for example a slice of the
            columns of a wider tensor; None is a new tensor.

    Returns:
        ``[..., N]`` of x's dtype. Differentiation through it raises. Under ``"auto"`` on a GPU, shapes for
        which dense was measured to be fastest are not pruned; `explain` tells.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = Pattern(pattern)
    decision = decide_linear(x, weight, bias, pattern=pattern, scale=scale, rescale=rescale, backend=backend)
    library.forbid_tangents(x, weight, bias, scale)
    checks.check_out(out, x, weight)
    if decision.backend != "cutlass":
        weight = weight.narrow(1, 0, x.shape[-1])
    if decision.backend == "reference":
        checks.check_factor_values("scale", scale)
        function = reference.linear
        y = library.ForbidBackward.apply(function, x, weight, bias, pattern, scale, rescale)
    elif decision.backend == DENSE:
        return dense_linear(x, weight, bias, out)
    elif decision.kernel == MASKED_DENSE and out is not None:
        return dense_linear(nm_prune(x, pattern, scale, rescale, decision.backend), weight, bias, out)
    else:
        op = torch.ops.amber.linear
        y = checks.run(op, x, weight, bias, scale, str(pattern), rescale, decision.kernel, scale=scale)
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
) -> torch.Tensor:
    """``Y = Q(x) Wᵀ · token_scale · weight_scale + b``, with Q as `quantize_activations` does it.

    Args:
        x, pattern, scale, smooth, rescale: as for `quantize_activations`.
        weight: ``[N, K]``, int8 or float8_e4m3fn, as `quantize_weight` makes it, or widened by `widen_weight`;
            not copied.
        weight_scale: fp32 ``[N]``.
        bias: ``[N]`` of x's dtype, or None.
        backend: those of `linear`.

    Returns:
        ``[..., N]`` of x's dtype. int8 products are exact in int32; scales and bias are applied in fp32.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = Pattern(pattern)
    checks.check_tensor("weight_scale", weight_scale)
    checks.check_factors("smooth", smooth, x)
    decision = decide_linear(
        x,
        weight,
        bias,
        pattern=pattern,
        scale=scale,
        rescale=rescale,
        backend=backend,
        weight_scale=weight_scale,
    )
    library.forbid_tangents(x, weight_scale, bias, scale, smooth)
    if decision.backend != "cutlass":
        weight = weight.narrow(1, 0, x.shape[-1])
    if x.numel() == 0 or weight.shape[0] == 0:
        y = x.new_zeros((*x.shape[:-1], weight.shape[0]))
        return y if bias is None else y + bias
    if decision.backend == "reference":
        checks.check_factor_values("scale", scale)
        checks.check_factor_values("smooth", smooth)
        function = reference.linear_w8a8
        return library.ForbidBackward.apply(
            function, x, weight, weight_scale, bias, pattern, smooth, scale, rescale
        )
    if decision.backend == "cutlass":
        return torch.ops.amber.sparse_linear_w8a8(
            x, weight, weight_scale, bias, smooth, scale, str(pattern), rescale, decision.kernel
        )
    kept = UNPRUNED if decision.backend == DENSE else pattern
    return _masked_dense_w8a8(x, weight, weight_scale, bias, kept, scale, smooth, rescale)


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
) -> Decision:
    """What `linear`, or with ``weight_scale`` `linear_w8a8`, would run, after its checks; nothing is computed.

    Args, raises: as these.
    """
    pattern = _checked(x, pattern, scale)
    checks.one_of("rescale", rescale, checks.RESCALES)
    if weight_scale is None:
        checks.check_linear(x, weight, bias, pattern)
    else:
        checks.check_linear_w8a8(x, weight, weight_scale, bias, pattern)
    return choose_product(problem_of(x, weight, bias, pattern, rescale), backend)


def _checked(x: torch.Tensor, pattern: str | Pattern, scale: torch.Tensor | None) -> Pattern:
    pattern = Pattern(pattern)
    checks.check_input(x, pattern)
    checks.check_factors("scale", scale, x)
    return pattern


def _masked_dense_w8a8(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    pattern: Pattern,
    scale: torch.Tensor | None,
    smooth: torch.Tensor | None,
    rescale: str,
) -> torch.Tensor:
    out_features, in_features = weight.shape
    dtype = "int8" if weight.dtype == torch.int8 else "e4m3"
    rows = x.reshape(-1, in_features)
    values, token_scale = checks.run(
        torch.ops.amber.quantize_activations, rows, smooth, scale, str(pattern), rescale, dtype,
        smooth=smooth, scale=scale,
    )  # fmt: skip
    if dtype == "int8":
        product = int8_product(values, weight)
        y = torch.ops.amber.dequantize(
            product, token_scale, weight_scale, bias, str(x.dtype).removeprefix("torch.")
        )
    else:
        # Row-wise scales exist for bf16 outputs alone.
        y = torch._scaled_mm(
            values, weight.t(), token_scale.unsqueeze(1), weight_scale.unsqueeze(0), out_dtype=torch.bfloat16
        ).to(x.dtype)
        y = y if bias is None else y + bias
    return y.view(*x.shape[:-1], out_features)
