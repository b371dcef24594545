"""`refresh_`: scores and copies follow weights that were changed in a way which nothing shows."""

from __future__ import annotations

import torch

from amber_ext.layers.weight_copies import WeightCopies


def refresh_(model: torch.nn.Module) -> None:
    """Computes the scores of pruned layers, and the copies of weights on a GPU, from the weights as they are now.

    Layers do this themselves where they see that their weight was changed; what they cannot see is in
    docs/integrations.md. Memory is written in place where it fits, so that captured CUDA graphs read what is new. A model
    without pruned layers stays as it is. The channel scales of 8-bit layers belong to their file and stay.

    Args:
        model: a model after `sparsify_` or `quantize_`, or one pruned layer. Where tensor parallelism has split its
            weights, every process has to call this.

    Raises:
        ValueError: a weight with NaN or Inf; the message names the layer. Layers before it are done.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, WeightCopies):
            layer.forget()
            try:
                # Weights that accelerate keeps elsewhere are on the meta device: they are looked at when they come in.
                layer.renew()
            except ValueError as error:
                raise ValueError(f"layer '{name}': {error}") from None
