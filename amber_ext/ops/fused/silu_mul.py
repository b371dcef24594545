"""`silu_mul_prune`, and the down projection of a gated MLP that reads what it makes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from amber_ext.ops import checks, library
from amber_ext.ops.backends import choose_kernels
from amber_ext.ops.choice.plan import Plan
from amber_ext.ops.choice.products import plan_for
from amber_ext.ops.functional import linear, linear_w8a8
from amber_ext.ops.fused import reference
from amber_ext.ops.fused.form import LAYOUTS, CompressedForm, empty_form, layout_for
from amber_ext.ops.fused.product import sparse_linear_compressed
from amber_ext.ops.pattern import Pattern
from amber_ext.ops.reference import QUANTIZED_DTYPES


def silu_mul_prune(
    gate: torch.Tensor,
    up: torch.Tensor,
    pattern: str | Pattern,
    *,
    scale: torch.Tensor | None = None,
    smooth: torch.Tensor | None = None,
    rescale: str = "none",
    dtype: str | None = None,
    layout: str = "dense",
    backend: str = "auto",
) -> CompressedForm:
    """The pruned form of ``silu(gate) * up``, without that product itself.

    Args:
        gate, up: ``[..., K]``, float32, float16 or bfloat16, alike; K a multiple of M.
        pattern, scale, rescale: as for `nm_prune`; ``scale`` has ``smooth`` multiplied in.
        smooth: fp32 ``[K]``, as for `quantize_activations`; 8-bit values only.
        dtype: of the values: ``"int8"``, ``"e4m3"``, or None for gate's own.
        layout: ``"dense"`` on the CPU, ``"sm80"`` or ``"sm90"`` on a GPU: what the product will read (`CompressedForm`).
        backend: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"reference"``, which has layout ``"dense"`` alone.

    Returns:
        the form. Bit for bit that of the separate functions on the CPU; on a GPU silu is rounded to the nearest number,
        which torch's nearly always is.

    Raises:
        ValueError, TypeError: an argument is not as above. RuntimeError: the backend cannot run, or not this layout.
    """
    pattern = Pattern(pattern)
    checks.check_input(gate, pattern, "gate")
    checks.check_tensor("up", up)
    if (up.dtype, up.device, up.shape) != (gate.dtype, gate.device, gate.shape):
        raise ValueError(
            f"up: {up.dtype} {list(up.shape)} on {up.device} does not match gate; it must be {gate.dtype} "
            f"{list(gate.shape)} on {gate.device}"
        )
    checks.check_factors("scale", scale, gate)
    checks.check_factors("smooth", smooth, gate)
    checks.one_of("rescale", rescale, checks.RESCALES)
    checks.one_of("layout", layout, LAYOUTS)
    if dtype is not None:
        checks.one_of("dtype", dtype, tuple(QUANTIZED_DTYPES))
    elif smooth is not None:
        raise ValueError("smooth: it is for dtype 'int8' and 'e4m3'; without one it must be None")
    library.forbid_tangents(gate, up, scale, smooth)
    name = dtype or checks.dtype_name(gate.dtype)
    if choose_kernels("silu_mul_prune", gate.device, backend).backend == "reference":
        if layout != "dense":
            raise RuntimeError(f"layout: {layout!r} does not run on the reference; allowed: 'dense'")
        checks.check_factor_values("scale", scale)
        checks.check_factor_values("smooth", smooth)
        arguments = (gate, up, pattern, smooth, scale, rescale, name)
        values, token_scale = library.ForbidBackward.apply(reference.silu_mul_prune, *arguments)
        metadata = torch.empty(0, dtype=torch.uint8, device=gate.device)
    else:
        values, metadata, token_scale = checks.run(
            torch.ops.amber.silu_mul_prune, gate, up, smooth, scale, str(pattern), rescale, name, layout,
            smooth=smooth, scale=scale,
        )  # fmt: skip
    return CompressedForm(values, metadata, token_scale, pattern, layout)


def silu_mul_linear(
    gate: torch.Tensor,
    up: torch.Tensor,
    *,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    pattern: Pattern,
    scale: torch.Tensor | None,
    rescale: str,
    backend: str,
    allow_unpruned: bool,
    plan: Plan | None,
    weight_scale: torch.Tensor | None = None,
    smooth: torch.Tensor | None = None,
) -> torch.Tensor:
    """`linear` of ``silu(gate) * up``, or `linear_w8a8` where there is a ``weight_scale``.

    By a form in between where its plan reads one for so many tokens, else by the separate functions. The result is the
    same, but on a GPU as `silu_mul_prune` says.

    Args:
        gate, up: ``[..., K]``, as for `silu_mul_prune`. The others: of `linear` and `linear_w8a8`.

    Returns:
        ``[..., N]`` of gate's dtype.

    Raises:
        ValueError, TypeError, RuntimeError: as those functions.
    """
    if plan is None:
        plan = plan_for(gate.dtype, gate.shape[-1], weight, bias, pattern, rescale, backend, allow_unpruned)
    tokens = math.prod(gate.shape[:-1])  # not numel(): a compiler would make a graph for each
    layout = layout_for(plan, tokens)
    if layout is None or gate.numel() == 0:
        how = {"pattern": pattern, "scale": scale, "rescale": rescale, "backend": backend}
        how |= {"allow_unpruned": allow_unpruned, "plan": plan}
        x = F.silu(gate) * up
        if weight_scale is None:
            return linear(x, weight, bias, **how)
        return linear_w8a8(x, weight, weight_scale, bias, smooth=smooth, **how)
    quantized = {kind: name for name, kind in QUANTIZED_DTYPES.items()}
    form = silu_mul_prune(
        gate, up, pattern, scale=scale, smooth=smooth, rescale=rescale, dtype=quantized.get(weight.dtype),
        layout=layout, backend=plan.backend,
    )  # fmt: skip
    y = sparse_linear_compressed(form, weight, bias, weight_scale, dtype=gate.dtype, plan=plan)
    return y[:tokens].view(*gate.shape[:-1], -1)


if library.LOAD_ERROR is None:

    @torch.library.register_fake("amber::silu_mul_prune")
    def _(gate, up, smooth, scale, pattern, rescale, dtype, layout):
        library.one_device(gate, up=up, smooth=smooth, scale=scale)
        return empty_form(gate, pattern, dtype, layout)

    torch.library.register_autograd("amber::silu_mul_prune", library.forbid_backward)
