"""What a saved model says of its pruned and quantised layers, and how damage to it is noticed.

The manifest is the ``quantization_config`` in ``config.json`` (`AmberQuantConfig`): what each layer is, and for a
quantised model a checksum of every tensor and of ``config.json`` itself. `amber_ext.methods.legacy_checkpoint` reads the
folders that `save_quantized` of version 0.1.0 wrote.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch

from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.quantized_linear import QuantizedLinear

QUANT_METHOD = "amber_ext"  # in the config.json of a saved model

# The key under which version 0.1.0 kept a checksum with each quantised layer, instead of one for each tensor.
LAYER_CHECKSUM = "crc32"

# The key of `config_digest` in the manifest. Folders that were written before it existed have none.
CONFIG_DIGEST = "config_sha256"

# What transformers may cast a tensor to while it loads it.
_CASTS = (torch.float32, torch.bfloat16, torch.float16)


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
    """Each tensor of the ``state_dict`` to its dtype and CRC-32: what a loaded model must have again.

    Behind them stand the dtypes and CRC-32s of what it becomes when the model is loaded in another dtype. What belongs
    to 8-bit layers keeps its own.
    """
    fixed = {
        f"{name}.{buffer}"
        for name, layer in model.named_modules()
        if isinstance(layer, QuantizedLinear)
        for buffer in layer.state_dict()
    }
    return {
        name: _checksum(tensor) if name in fixed else _checksum_of_casts(tensor)
        for name, tensor in model.state_dict().items()
    }


def config_digest(fields: Mapping[str, object]) -> str:
    """SHA-256 of the content of a ``config.json``, however it is written, without this digest itself.

    Left out as well are names of files that transformers adds or takes away while it writes.
    """
    manifest = {k: v for k, v in (fields.get("quantization_config") or {}).items() if k != CONFIG_DIGEST}
    kept = {k: v for k, v in fields.items() if k not in ("auto_map", "transformers_weights")}
    kept["quantization_config"] = manifest
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def check_config_file(path: Path, expected: str) -> None:
    """Raises ValueError when a ``config.json`` is not the one that was saved.

    Args:
        expected: its `config_digest`.
    """
    try:
        found = config_digest(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"quantization_config: {str(path)!r} cannot be compared with its checksum: {error!r}"
        ) from None
    if found != expected:
        raise ValueError(
            f"quantization_config: {str(path)!r} is not the one that was saved: a field of the model or of a layer was "
            "changed"
        )


def check_saved(
    model: torch.nn.Module, layers: Mapping[str, Mapping[str, object]], expected: Mapping[str, str]
) -> None:
    """Raises ValueError when a tensor is not the one that was saved, and names its module.

    Not compared are tensors that accelerate has offloaded, and those in a dtype that `checksums` knows nothing of.

    Args:
        layers: what `describe_layers` said when the model was saved.
        expected: what `checksums` said.
    """
    found = model.state_dict()
    recast = set(recast_tensors(model, expected))
    for name, checksum in expected.items():
        tensor = found.get(name)
        if tensor is None:
            raise damaged(name.rpartition(".")[0])
        words = checksum.split()
        allowed = dict(zip(words[::2], words[1::2], strict=False))
        unknown = name in recast and _dtype(tensor) not in allowed
        if not (tensor.is_meta or unknown or allowed.get(_dtype(tensor)) == f"{_crc32(tensor):08x}"):
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


def _checksum_of_casts(tensor: torch.Tensor) -> str:
    casts = [tensor.to(dtype) for dtype in _CASTS if tensor.dtype in _CASTS and dtype != tensor.dtype]
    return " ".join(_checksum(one) for one in (tensor, *casts))


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
            "allow_unpruned": module.allow_unpruned,
        }
    if isinstance(module, AmberLinear):
        return {
            "kind": "pruned",
            "pattern": str(module.pattern),
            "score": module.score,
            "rescale": module.rescale,
            "backend": module.backend,
            "allow_unpruned": module.allow_unpruned,
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
