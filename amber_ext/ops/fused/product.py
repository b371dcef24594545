"""`sparse_linear_compressed`: the linear layer on an input that is pruned already."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from amber_ext.ops import checks, library
from amber_ext.ops.choice.plan import Plan
from amber_ext.ops.dense_products import product_w8a8
from amber_ext.ops.fused.form import CompressedForm, shapes_of
from amber_ext.ops.pattern import Pattern
from amber_ext.ops.reference import QUANTIZED_DTYPES
from amber_ext.ops.sparse_gemms import MASKED_DENSE


def sparse_linear_compressed(
    x: CompressedForm,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    weight_scale: torch.Tensor | None = None,
    *,
    dtype: torch.dtype,
    plan: Plan,
) -> torch.Tensor:
    """``Y = X Wᵀ + b`` for an X in a compressed form; of 8-bit values times the scales of both.

    Args:
        weight: as for `linear` and `linear_w8a8`, of the values' dtype.
        bias: ``[N]`` of ``dtype``, or None.
        weight_scale: fp32 ``[N]`` where weight is 8-bit, else None.
        dtype: of Y.
        plan: whose kernels run; all of them must read the form's layout.

    Returns:
        ``[R, N]``: a row for each row of the values (`CompressedForm`), the first T of them those of the tokens.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the form is not one of its layout, or does not
            match the weight; or the kernel cannot run here.
    """
    library.forbid_tangents(x.values, x.token_scale, weight, bias, weight_scale)
    return torch.ops.amber.sparse_linear_compressed(
        x.values, x.metadata, x.token_scale, weight, weight_scale, bias, str(x.pattern), checks.dtype_name(dtype),
        x.layout, list(plan.kernels), list(plan.thresholds),
    )  # fmt: skip


def _on_cpu(
    values: torch.Tensor,
    metadata: torch.Tensor,
    token_scale: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor | None,
    bias: torch.Tensor | None,
    pattern: str,
    dtype: str,
    layout: str,
    kernels: list[str],
    thresholds: list[int],
) -> torch.Tensor:
    """The op on the CPU, where X is there itself: layout ``"dense"``."""
    if layout != "dense":
        raise RuntimeError(f"layout: {layout!r} does not run on the CPU; allowed: 'dense'")
    if kernels != [MASKED_DENSE]:
        raise RuntimeError(
            f"kernels: {kernels} do not read layout 'dense' on the CPU; allowed: [{MASKED_DENSE!r}]"
        )
    is_8bit = values.dtype in QUANTIZED_DTYPES.values()
    if values.dim() != 2 or values.dtype != weight.dtype or is_8bit != (weight_scale is not None):
        raise RuntimeError(
            f"values: {values.dtype} {list(values.shape)} does not match weight {weight.dtype}"
            f"{'' if weight_scale is None else ' with scales'}; it must be [T, K] of the weight's dtype, and 8-bit ones "
            "alone have scales"
        )
    _, metadata_bytes, scales = shapes_of(*values.shape, Pattern(pattern), layout, values.itemsize, is_8bit)
    for name, tensor, count in (("metadata", metadata, metadata_bytes), ("token_scale", token_scale, scales)):
        if tuple(tensor.shape) != (count,):
            raise RuntimeError(
                f"{name}: shape {list(tensor.shape)} is not that of a form of values {list(values.shape)} in layout "
                f"{layout!r}; allowed: [{count}]"
            )
    y_dtype = getattr(torch, dtype)
    like_y = values.new_empty((0, values.shape[1]), dtype=y_dtype)
    if is_8bit:
        checks.check_linear_w8a8(like_y, weight, weight_scale, bias, Pattern(pattern))
        if values.dtype != torch.int8:
            raise RuntimeError("values: torch has no e4m3 product on the CPU; allowed: int8")
    else:
        checks.check_linear(like_y, weight, bias, Pattern(pattern))
    columns = weight.narrow(1, 0, values.shape[1])
    if not is_8bit:
        return F.linear(values, columns, bias)
    if values.numel() == 0 or len(weight) == 0:
        return like_y.new_zeros((len(values), len(weight))) + (0 if bias is None else bias)
    return product_w8a8(values, token_scale, columns, weight_scale, bias, y_dtype)


if library.LOAD_ERROR is None:
    _library = torch.library.Library("amber", "FRAGMENT")
    _library.impl("sparse_linear_compressed", _on_cpu, "CPU")

    @torch.library.register_fake("amber::sparse_linear_compressed")
    def _(
        values, metadata, token_scale, weight, weight_scale, bias, pattern, dtype, layout, kernels, thresholds
    ):
        others = {"weight": weight, "weight_scale": weight_scale, "bias": bias}
        library.one_device(values, metadata=metadata, token_scale=token_scale, **others)
        return values.new_empty((values.shape[0], weight.shape[0]), dtype=getattr(torch, dtype))

    torch.library.register_autograd("amber::sparse_linear_compressed", library.forbid_backward)
