"""What a saved model says of its pruned and quantised layers, and how damage to it is noticed.

The manifest is the ``quantization_config`` in ``config.json`` (`AmberQuantConfig`): what each layer is, and for a
quantised model a checksum of every tensor. `amber_ext.methods.legacy_checkpoint` reads the folders that
`save_quantized` of version 0.1.0 wrote.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch

from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.quantized_linear import QuantizedLinear

QUANT_METHOD = "amber_ext"  # in the config.json of a saved model

# The key under which version 0.1.0 kept a checksum with each quantised layer, instead of one for each tensor.
LAYER_CHECKSUM = "crc32"


def describe_layers(model: torch.nn.Module) -> dict[str, dict[str, object]]:
    """What each pruned or quantised layer is, by name, in plain JSON types."""
    layers = {name: _describe(module) for name, module in model.named_modules()}
    return {name: layer for name, layer in layers.items() if layer is not None}


def empty_layers(
    model: torch.nn.Module, layers: Mapping[str, Mapping[str, object]]
) -> dict[str, torch.nn.Module]:
    """Layers to load weights into, as `describe_layers` said; ``model`` has its dense ones, on the meta device."""
    return {
        name: _empty_layer(fields)
        if fields["kind"] == "quantized"
        else AmberLinear.from_linear(model.get_submodule(name), **_options(fields))
        for name, fields in layers.items()
    }


def checksums(model: torch.nn.Module) -> dict[str, str]:
    """Each tensor of the ``state_dict`` to its dtype and CRC-32: what a loaded model must have again."""
    return {name: _checksum(tensor) for name, tensor in model.state_dict().items()}


def check_saved(
    model: torch.nn.Module, layers: Mapping[str, Mapping[str, object]], expected: Mapping[str, str]
) -> None:
    """Raises ValueError when a tensor is not the one that was saved, and names its module.

    Not compared are tensors that were asked for in another dtype (`recast_tensors`), and those that accelerate has
    offloaded.

    Args:
        layers: what `describe_layers` said when the model was saved.
        expected: what `checksums` said.
    """
    found = model.state_dict()
    recast = set(recast_tensors(model, expected))
    for name, checksum in expected.items():
        tensor = found.get(name)
        if tensor is None or not (tensor.is_meta or name in recast or _checksum(tensor) == checksum):
            raise damaged(name.rpartition(".")[0])
    for name, fields in layers.items():
        if fields["kind"] == "quantized" and f"{name}.weight" not in expected:
            value = 0
            for buffer in model.get_submodule(name).buffers(recurse=False):
                value = _crc32(buffer, value)
            if value != fields.get(LAYER_CHECKSUM):
                raise damaged(name)


def recast_tensors(model: torch.nn.Module, expected: Mapping[str, str]) -> list[str]:
    """The tensors of the ``state_dict`` that have another floating-point dtype than when they were saved."""
    return [
        name
        for name, tensor in model.state_dict().items()
        if name in expected
        and tensor.is_floating_point()
        and _dtype(tensor) != expected[name].partition(" ")[0]
    ]


def damaged(module: str) -> ValueError:
    """The error for tensors that are not those that were saved."""
    return ValueError(
        f"layer '{module}': its tensors are not those that were saved; the files are incomplete or changed"
    )


def _checksum(tensor: torch.Tensor) -> str:
    return f"{_dtype(tensor)} {_crc32(tensor):08x}"


def _crc32(tensor: torch.Tensor, value: int = 0) -> int:
    return zlib.crc32(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy(), value)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _describe(module: torch.nn.Module) -> dict[str, object] | None:
    if isinstance(module, QuantizedLinear):
        return {
            "kind": "quantized",
            "in_features": module.in_features,
            "out_features": module.out_features,
            "bias_dtype": None if module.bias is None else _dtype(module.bias),
            "smooth": module.smooth is not None,
            "channel_scale": module.channel_scale is not None,
            "dtype": module.dtype,
            "pattern": str(module.pattern),
            "rescale": module.rescale,
            "backend": module.backend,
        }
    if isinstance(module, AmberLinear):
        return {
            "kind": "pruned",
            "pattern": str(module.pattern),
            "score": module.score,
            "rescale": module.rescale,
            "backend": module.backend,
        }
    return None


def _options(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if name not in ("kind", LAYER_CHECKSUM)}


def _empty_layer(fields: Mapping[str, object]) -> QuantizedLinear:
    options = _options(fields)
    bias_dtype = options.pop("bias_dtype")
    return QuantizedLinear(
        **options,
        bias=bias_dtype is not None,
        bias_dtype=getattr(torch, bias_dtype or "float32"),
        device="meta",
    )
