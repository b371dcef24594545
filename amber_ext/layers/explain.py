"""`explain`: what a layer would run on an input, and why."""

from __future__ import annotations

import torch

from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.ops.backends import Decision
from amber_ext.ops.functional import decide_linear
from amber_ext.ops.sparse_gemms import DENSE
from amber_ext.phase import DECODE, current_phase


def explain(layer: torch.nn.Module, x: torch.Tensor) -> Decision:
    """The backend and kernel that ``layer(x)`` would use now, and the reason. Nothing is computed.

    Args:
        layer: an `AmberLinear`, a `QuantizedLinear`, or a dense layer.
        x: ``[..., K]``.

    Raises:
        ValueError, TypeError, RuntimeError: what ``layer(x)`` would raise: x does not fit the layer, or the layer's
            explicit backend cannot run on it.
    """
    if isinstance(layer, QuantizedLinear):
        arguments = layer.call_arguments(x)
        del arguments["smooth"]  # multiplied in, wherever the product runs
        return decide_linear(x, **arguments)
    if not isinstance(layer, AmberLinear):
        return Decision(DENSE, f"{type(layer).__name__} is not a pruned layer", DENSE)
    if current_phase() == DECODE:
        return Decision(DENSE, "decode runs dense", DENSE)
    return decide_linear(x, **layer.call_arguments(x))
