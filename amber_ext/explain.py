"""`explain`: what a layer would run on an input, and why."""

from __future__ import annotations

import torch

from amber_ext.amber_linear import AmberLinear
from amber_ext.dispatch import Decision, choose_linear
from amber_ext.dispatch_w8a8 import UNPRUNED, choose_w8a8
from amber_ext.phase import DECODE, current_phase
from amber_ext.quantized_linear import QuantizedLinear


def explain(layer: torch.nn.Module, x: torch.Tensor) -> Decision:
    """The backend that ``layer(x)`` would use now, and the reason. Nothing is computed.

    Args:
        layer: an `AmberLinear`, a `QuantizedLinear`, or a dense layer.
        x: ``[..., K]``.

    Raises:
        RuntimeError: the layer's explicit backend cannot run on x.
    """
    if isinstance(layer, QuantizedLinear):
        dense = current_phase() == DECODE
        pattern = UNPRUNED if dense else layer.pattern
        return choose_w8a8(x, layer.prefill_weight, pattern, layer.backend_of(dense))
    if not isinstance(layer, AmberLinear):
        return Decision("dense", f"{type(layer).__name__} is not a pruned layer")
    if current_phase() == DECODE:
        return Decision("dense", "decode runs dense")
    return choose_linear(x, layer.prefill_weight, layer.pattern, layer.rescale, layer.backend)
