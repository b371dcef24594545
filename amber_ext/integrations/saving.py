"""`save_quantized`: a quantised model as a folder, with transformers' own files."""

from __future__ import annotations

from pathlib import Path

import torch

from amber_ext.layers.quantized_linear import QuantizedLinear


def save_quantized(model: torch.nn.Module, folder: str | Path, tokenizer: object | None = None) -> None:
    """Writes a model that `quantize_` made, so that `load_quantized` and ``from_pretrained`` give it back.

    Args:
        model: a transformers model.
        folder: is made if it is not there; files of the same names are replaced.
        tokenizer: is saved beside the model when given.

    Raises:
        ValueError: the model has no quantised layers.
    """
    from amber_ext.integrations.transformers import attach_config

    if not any(isinstance(module, QuantizedLinear) for module in model.modules()):
        raise ValueError("model: it has no quantised layers; call quantize_ first")
    attach_config(model)
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
