"""The fused producers in plain PyTorch: the specification that their kernels are tested against.

Each is what the separate functions do, one after the other; results are those of layout ``"dense"``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from amber_ext.ops import reference
from amber_ext.ops.pattern import Pattern


def pruned_form(
    x: torch.Tensor,
    pattern: Pattern,
    smooth: torch.Tensor | None,
    scale: torch.Tensor | None,
    rescale: str,
    dtype: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values ``[T, K]`` and token scales fp32 (``[T]``, of 16- and 32-bit values ``[0]``) of x ``[..., K]``."""
    rows = x.reshape(-1, x.shape[-1])
    if dtype in reference.QUANTIZED_DTYPES:
        return reference.quantize_activations(rows, pattern, smooth, scale, rescale, dtype)
    return reference.nm_prune(rows, pattern, scale, rescale), x.new_empty(0, dtype=torch.float32)


def silu_mul_prune(
    gate: torch.Tensor,
    up: torch.Tensor,
    pattern: Pattern,
    smooth: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    rescale: str = "none",
    dtype: str = "float32",
) -> tuple[torch.Tensor, torch.Tensor]:
    """`pruned_form` of ``silu(gate) * up``; both steps are rounded to the dtype of gate."""
    return pruned_form(F.silu(gate) * up, pattern, smooth, scale, rescale, dtype)
