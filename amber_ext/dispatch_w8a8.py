"""8-bit linear layers on pruned activations: the public functions, and the choice of a backend.

Backends:
    ``"reference"``: plain PyTorch with fp64 products, on any device.
    ``"cpu"``, ``"cuda"``: prune and quantise in one kernel, then torch's dense 8-bit product: an exact int8
    one (`amber_ext.int8_product`), or `torch._scaled_mm` for e4m3 on CUDA.
    ``"cutlass"``: on CUDA: prune, quantise and compress in one kernel, then a sparse 8-bit GEMM; 2:4, and with a
    weight from `widen_weight` 4:8, 8:16, 10:16w and 12:16w.
    ``"auto"``: on CUDA what `dispatch_table.json` says was measured to be fastest; else the compiled
    kernels of x's device; else the reference.

An explicit backend runs or raises.
"""

from __future__ import annotations

import torch

from amber_ext import checks, ops, reference_w8a8
from amber_ext.dispatch import Decision, choose, choose_cutlass, has_copies, measurement
from amber_ext.dispatch_table import DENSE, MASKED_DENSE
from amber_ext.int8_product import CUDA_MULTIPLE, has_fast_int8, int8_product
from amber_ext.pattern import Pattern
from amber_ext.reference_w8a8 import QUANTIZED_DTYPES

# Keeps everything: the dense 8-bit layer.
UNPRUNED = Pattern("1:1")

# Longer sums of 8-bit products could overflow int32.
MAX_IN_FEATURES = (2**31 - 1) // 127**2


def quantize_weight(weight: torch.Tensor, dtype: str = "int8") -> tuple[torch.Tensor, torch.Tensor]:
    """A weight in 8 bits, symmetric, one scale for each output channel.

    Args:
        weight: ``[N, K]``, float32, float16 or bfloat16, finite.
        dtype: ``"int8"`` or ``"e4m3"`` (`torch.float8_e4m3fn`).

    Returns:
        values ``[N, K]`` of that dtype and scales fp32 ``[N]``, with weight ≈ values · scale.

    Raises:
        ValueError: unknown dtype, weight not 2-dimensional, empty or not finite. TypeError: weight's dtype.
    """
    checks.one_of("dtype", dtype, tuple(QUANTIZED_DTYPES))
    if weight.dtype not in checks.DTYPES:
        raise TypeError(f"weight: dtype {weight.dtype} is not supported; allowed: {checks.DTYPES}")
    if weight.dim() != 2 or weight.numel() == 0:
        raise ValueError(f"weight: shape {list(weight.shape)} is not allowed; it must be [N, K], not empty")
    values, scales = reference_w8a8.quantize_rows(weight.detach().float(), dtype)
    if not scales.isfinite().all():
        raise ValueError("weight: it contains NaN or Inf; every entry must be finite")
    return values, scales.squeeze(-1)


def quantize_activations(
    x: torch.Tensor,
    pattern: str | Pattern = UNPRUNED,
    *,
    scale: torch.Tensor | None = None,
    smooth: torch.Tensor | None = None,
    rescale: str = "none",
    dtype: str = "int8",
    backend: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prunes each token to N:M, multiplies it by ``smooth`` and quantises what is left, symmetrically.

    Args:
        x: ``[..., K]``, float32, float16 or bfloat16; K a multiple of M.
        pattern: ``"1:1"`` prunes nothing.
        scale: fp32 ``[K]``, the channel scale of the selection (`nm_mask`), ``smooth`` multiplied in.
        smooth: fp32 ``[K]``, finite and > 0: SmoothQuant factors to apply on the fly. None is 1.
        rescale: ``"variance"`` multiplies the token's scale by ``sqrt(var(token) / var(pruned token))``.
        dtype: ``"int8"`` or ``"e4m3"``.
        backend: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"reference"``.

    Returns:
        values ``[..., K]`` of that dtype and token scales fp32 ``[...]``. The scale is the absolute maximum
        of the kept values over 127 (448 for e4m3). A token with NaN or Inf has values 0 and scale NaN.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = Pattern(pattern)
    checks.check_input(x, pattern)
    checks.check_factors("scale", scale, x)
    checks.check_factors("smooth", smooth, x)
    checks.one_of("rescale", rescale, checks.RESCALES)
    checks.one_of("dtype", dtype, tuple(QUANTIZED_DTYPES))
    if choose("quantize_activations", x, backend).backend == "reference":
        checks.check_factor_values("scale", scale)
        checks.check_factor_values("smooth", smooth)
        function = reference_w8a8.quantize_activations
        return ops.ForbidBackward.apply(function, x, pattern, smooth, scale, rescale, dtype)
    return torch.ops.amber.quantize_activations(x, smooth, scale, str(pattern), rescale, dtype)


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
        backend: see the module's text.

    Returns:
        ``[..., N]`` of x's dtype. int8 products are exact in int32; scales and bias are applied in fp32.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run.
    """
    pattern = Pattern(pattern)
    checks.check_input(x, pattern)
    checks.check_factors("scale", scale, x)
    checks.check_factors("smooth", smooth, x)
    checks.one_of("rescale", rescale, checks.RESCALES)
    _check_weight(x, weight, weight_scale, bias, pattern)
    decision = choose_w8a8(x, weight, pattern, backend)
    if decision.backend != "cutlass":
        weight = weight[:, : x.shape[-1]]
    if x.numel() == 0 or weight.shape[0] == 0:
        y = x.new_zeros((*x.shape[:-1], weight.shape[0]))
        return y if bias is None else y + bias
    if decision.backend == "reference":
        checks.check_factor_values("scale", scale)
        checks.check_factor_values("smooth", smooth)
        function = reference_w8a8.linear_w8a8
        return ops.ForbidBackward.apply(
            function, x, weight, weight_scale, bias, pattern, smooth, scale, rescale
        )
    if decision.backend == "cutlass":
        return torch.ops.amber.sparse_linear_w8a8(
            x, weight, weight_scale, bias, smooth, scale, str(pattern), rescale, decision.kernel
        )
    kept = UNPRUNED if decision.kernel == DENSE else pattern
    return _masked_dense(x, weight, weight_scale, bias, kept, scale, smooth, rescale)


def choose_w8a8(x: torch.Tensor, weight: torch.Tensor, pattern: Pattern, backend: str = "auto") -> Decision:
    """The backend and kernel of `linear_w8a8`.

    Raises:
        ValueError: ``backend`` is unknown. RuntimeError: an explicit backend cannot run here.
    """
    if backend == "cutlass":
        return choose_cutlass(x, weight, pattern)
    decision = choose("linear_w8a8", x, backend)
    if decision.backend == "reference":
        return decision
    missing = _missing_dense_product(x, weight)
    if missing is not None:
        if backend != "auto":
            raise RuntimeError(
                f"backend: {backend!r} cannot run here: {missing}; allowed: 'auto', 'reference'"
            )
        return Decision("reference", missing)
    product = "torch's int8 product" if has_fast_int8(x.device) else "exact fp32 products (no VNNI)"
    dense = Decision(decision.backend, f"{decision.reason}, then {product}")
    if backend != "auto" or decision.backend != "cuda" or pattern.n == pattern.m:
        return dense
    measured = measurement(x, weight, pattern)
    if measured is None:
        return Decision("cuda", "masked dense: nothing was measured for this shape, GPU and build")
    if measured.kernel == DENSE:
        return Decision("cuda", f"not pruned: dense 8-bit was fastest in {measured.source}", DENSE)
    reason = f"measured {measured.speedup:.2f}x dense 8-bit in {measured.source}"
    if measured.kernel == MASKED_DENSE:
        return Decision("cuda", reason)
    if not has_copies(x, weight, pattern):
        return Decision("cuda", f"masked dense: the weight has no copies for {pattern} (widen_weight)")
    return Decision("cutlass", reason, measured.kernel)


def _missing_dense_product(x: torch.Tensor, weight: torch.Tensor) -> str | None:
    """Why torch has no dense 8-bit product for these here, or None."""
    if x.device.type == "cpu":
        return None if weight.dtype == torch.int8 else "torch has no e4m3 product on the CPU"
    multiple = CUDA_MULTIPLE if weight.dtype == torch.int8 else 2 * CUDA_MULTIPLE
    if weight.shape[0] % multiple or x.shape[-1] % multiple:
        sizes = [weight.shape[0], x.shape[-1]]
        return f"torch's 8-bit products need N and K to be multiples of {multiple}, not {sizes}"
    if weight.dtype != torch.int8 and torch.cuda.get_device_capability(x.device) < (8, 9):
        return "e4m3 products need compute capability 8.9 or newer"
    return None


def _masked_dense(
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
    values, token_scale = torch.ops.amber.quantize_activations(
        x.reshape(-1, in_features), smooth, scale, str(pattern), rescale, dtype
    )
    if dtype == "int8":
        product = int8_product(values, weight)
        y = torch.ops.amber.dequantize(
            product, token_scale, weight_scale, bias, str(x.dtype).removeprefix("torch.")
        )
    else:
        # Row-wise scales exist for bf16 outputs alone.
        y = torch._scaled_mm(
            values, weight.t(), token_scale[:, None], weight_scale[None, :], out_dtype=torch.bfloat16
        ).to(x.dtype)
        y = y if bias is None else y + bias
    return y.view(*x.shape[:-1], out_features)


def _check_weight(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    pattern: Pattern,
) -> None:
    if weight.dtype not in QUANTIZED_DTYPES.values():
        allowed = ", ".join(map(str, QUANTIZED_DTYPES.values()))
        raise TypeError(f"weight: dtype {weight.dtype} is not supported; allowed: {allowed}")
    checks.check_weight_shape(x, weight, pattern)
    if x.shape[-1] > MAX_IN_FEATURES:
        raise ValueError(
            f"weight: K = {x.shape[-1]} is too large; int32 sums are exact up to {MAX_IN_FEATURES}"
        )
    out_features = weight.shape[0]
    if weight_scale.dtype != torch.float32 or tuple(weight_scale.shape) != (out_features,):
        raise ValueError(
            f"weight_scale: {weight_scale.dtype} {list(weight_scale.shape)} is not allowed; it must be "
            f"float32 [{out_features}]"
        )
    if bias is not None and (bias.dtype != x.dtype or tuple(bias.shape) != (out_features,)):
        raise ValueError(
            f"bias: {bias.dtype} {list(bias.shape)} is not allowed; it must be {x.dtype} [{out_features}]"
        )
    for name, tensor in (("weight", weight), ("weight_scale", weight_scale), ("bias", bias)):
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"{name}: it is on {tensor.device} but x is on {x.device}; use one device")
