"""Saves and loads quantised models: safetensors and JSON, no calibration needed to load."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from amber_ext.amber_linear import AmberLinear
from amber_ext.layers import replace_modules
from amber_ext.phase import install_phase_hooks
from amber_ext.quantized_linear import QuantizedLinear

FORMAT = 1
MANIFEST = "amber_ext.json"
# Not transformers' own name: its from_pretrained would put 8-bit numbers into full-precision layers.
WEIGHTS = "amber_ext.safetensors"


def is_quantized_folder(folder: str | Path) -> bool:
    """Whether `save_quantized` wrote this folder."""
    return (Path(folder) / MANIFEST).is_file()


def save_quantized(model: torch.nn.Module, folder: str | Path, tokenizer: object | None = None) -> None:
    """Writes a model that `quantize_` made: its configuration, weights, and what each layer is.

    Args:
        model: a transformers model.
        folder: is made if it is not there; files of the same names are replaced.
        tokenizer: is saved beside the model when given.

    Raises:
        ValueError: the model has no quantised layers.
    """
    from safetensors.torch import save_file

    layers = describe_layers(model)
    if not any(layer["kind"] == "quantized" for layer in layers.values()):
        raise ValueError("model: it has no quantised layers; call quantize_ first")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # how the original was stored
    config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)

    tensors: dict[str, torch.Tensor] = {}
    tied: dict[str, str] = {}
    first_name: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in model.state_dict().items():
        owner = first_name.setdefault((tensor.data_ptr(), tensor.shape), name)
        if owner == name:
            tensors[name] = tensor.contiguous()
        else:
            tied[name] = owner
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    manifest = {"format": FORMAT, "weights_sha256": _sha256(folder / WEIGHTS), "tied": tied, "layers": layers}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def load_quantized(folder: str | Path) -> torch.nn.Module:
    """The model that `save_quantized` wrote, on the CPU, in eval mode; bit for bit what was saved.

    Raises:
        ValueError: the folder is not such a one, or a file in it is missing, truncated or changed.
    """
    from accelerate import init_empty_weights
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = Path(folder)
    manifest = _read_manifest(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ValueError(f"folder: {str(weights)!r} is missing")
    if _sha256(weights) != manifest["weights_sha256"]:
        raise ValueError(
            f"folder: {str(weights)!r} is truncated or was changed: its SHA-256 is not the one in {MANIFEST}"
        )
    try:
        config = AutoConfig.from_pretrained(folder)
        # Parameters without memory; buffers that are in no state_dict (rotary frequencies) are computed.
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(config)
        replace_modules(model, empty_layers(model, manifest["layers"]))
        missing, unexpected = model.load_state_dict(load_file(weights), strict=False, assign=True)
        model.tie_weights()
    except (OSError, RuntimeError, AttributeError, KeyError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ValueError(
            f"folder: {str(folder)!r} cannot be loaded: {type(error).__name__}: {text}"
        ) from error
    strays = [name for name in missing if name not in manifest["tied"]] + unexpected
    if strays:
        raise ValueError(f"folder: {str(folder)!r} does not fit its config.json: {', '.join(strays[:5])}")
    install_phase_hooks(model)
    return model.eval()


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


def _describe(module: torch.nn.Module) -> dict[str, object] | None:
    if isinstance(module, QuantizedLinear):
        return {
            "kind": "quantized",
            "in_features": module.in_features,
            "out_features": module.out_features,
            "bias_dtype": None if module.bias is None else str(module.bias.dtype).removeprefix("torch."),
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


def _options(fields: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if name != "kind"}


def _empty_layer(fields: dict[str, object]) -> QuantizedLinear:
    options = _options(fields)
    bias_dtype = options.pop("bias_dtype")
    return QuantizedLinear(
        **options,
        bias=bias_dtype is not None,
        bias_dtype=getattr(torch, bias_dtype or "float32"),
        device="meta",
    )


def _read_manifest(folder: Path) -> dict[str, object]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"folder: {str(path)!r} is missing; save_quantized writes it")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"folder: {str(path)!r} is not valid JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise ValueError(f"folder: {str(path)!r} has format {found!r}; this version reads {FORMAT}")
    for key, kind in (("weights_sha256", str), ("tied", dict), ("layers", dict)):
        if not isinstance(manifest.get(key), kind):
            raise ValueError(f"folder: {str(path)!r} has no valid {key!r}")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
