"""Reads a W8A8 folder of compressed-tensors. Its 8-bit numbers are taken as they are; nothing is rounded anew."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from amber_ext.config import EVERY_LAYER, OutstandingSparseConfig
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.layers.replace import replace_modules
from amber_ext.layers.sites import find_linears
from amber_ext.methods.compressed_tensors.scheme import ALLOWED, check_scheme
from amber_ext.methods.direct_reads import mark_quantized
from amber_ext.methods.sparsify import remember_config
from amber_ext.ops.reference import QUANTIZED_DTYPES
from amber_ext.phase import install_phase_hooks

INDEX = "model.safetensors.index.json"
SCALE = ".weight_scale"


def load_compressed(folder: Path, kind: type) -> torch.nn.Module:
    """The model of such a folder, unpruned, on the CPU, in eval mode.

    Args:
        kind: the class of transformers to make, or one of its Auto classes.

    Raises:
        ValueError: a scheme that is not read, or files that do not make such a model. Besides, what transformers and
            safetensors raise for damaged files.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    check_scheme(config.quantization_config)
    del config.quantization_config
    make = getattr(kind, "from_config", None) or kind._from_config
    # Parameters without memory; buffers that are in no state_dict (rotary frequencies) are computed.
    with init_empty_weights(include_buffers=False):
        model = make(config, dtype=config.dtype)
    tensors = _tensors(folder)
    names = [name.removesuffix(SCALE) for name in tensors if name.endswith(SCALE)]
    if not names:
        raise ValueError("its files hold no 8-bit layers")
    for site in find_linears(model):
        if site.is_read and site.name in names:
            raise ValueError(
                f"layer '{site.name}' is 8-bit, but the model's code reads its weight past the layer"
            )
    replace_modules(model, {name: _layer(model, tensors, name) for name in names})
    unexpected = model.load_state_dict(tensors, strict=False, assign=True).unexpected_keys
    model.tie_weights()
    lacking = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if strays := lacking + unexpected:
        raise ValueError(f"its tensors do not fit its config.json: {', '.join(strays[:5])}")
    install_phase_hooks(model)
    mark_quantized(model, True)
    remember_config(model, _config_of(model))
    return model.requires_grad_(False).eval()


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    files = ["model.safetensors"]
    if (folder / INDEX).is_file():
        files = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    return {name: tensor for file in files for name, tensor in load_file(folder / file).items()}


def _layer(model: torch.nn.Module, tensors: dict[str, torch.Tensor], name: str) -> QuantizedLinear:
    """The 8-bit layer of this name; its tensors are taken out of ``tensors``, but for the bias."""
    linear = model.get_submodule(name)
    weight, scale = tensors.pop(f"{name}.weight"), tensors.pop(name + SCALE)
    zero_point = tensors.pop(f"{name}.weight_zero_point", None)
    for problem, found in (
        ("is no linear layer in this model", not isinstance(linear, torch.nn.Linear)),
        ("is stored with zero points", zero_point is not None and bool(zero_point.any())),
        (f"is stored in {weight.dtype}", weight.dtype not in QUANTIZED_DTYPES.values()),
        (f"has {scale.numel()} scales for {weight.shape[0]} channels", scale.numel() != weight.shape[0]),
    ):
        if found:
            raise ValueError(f"layer '{name}' {problem}; {ALLOWED} read")
    return QuantizedLinear.from_values(weight, scale.flatten().float(), linear.bias)


def _config_of(model: torch.nn.Module) -> OutstandingSparseConfig:
    """The configuration that makes such layers, as far as it matters: nothing is pruned, nothing smoothed here."""
    layers_of: dict[str, list[int | None]] = {}
    dtype = "int8"
    for site in find_linears(model):
        layer = model.get_submodule(site.module_name)
        if isinstance(layer, QuantizedLinear):
            dtype = layer.dtype
        else:
            layers_of.setdefault(site.projection, []).append(site.layer)
    return OutstandingSparseConfig(
        targets=(),
        rescale="none",
        direction="none",
        dtype=dtype,
        unquantized={name: EVERY_LAYER if None in ids else ids for name, ids in layers_of.items()},
    )
