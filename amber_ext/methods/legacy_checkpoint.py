"""Reads the folders that `save_quantized` of version 0.1.0 wrote. Nothing writes them any more."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import torch

from amber_ext.config import EVERY_LAYER, OutstandingSparseConfig
from amber_ext.layers.replace import replace_modules
from amber_ext.methods.checkpoint import empty_layers
from amber_ext.methods.sparsify import remember_config
from amber_ext.phase import install_phase_hooks

FORMAT = 1
MANIFEST = "amber_ext.json"
WEIGHTS = "amber_ext.safetensors"
GENERATION = "generation_config.json"


def is_legacy_folder(folder: str | Path) -> bool:
    """Whether version 0.1.0's `save_quantized` wrote this folder."""
    return (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, object]:
    """The manifest of such a folder, once its weights are found to be those that were saved.

    Raises:
        ValueError: a file is missing, truncated or changed.
    """
    path, weights = folder / MANIFEST, folder / WEIGHTS
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
    if not weights.is_file():
        raise ValueError(f"folder: {str(weights)!r} is missing")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != manifest["weights_sha256"]:
        raise ValueError(
            f"folder: {str(weights)!r} is truncated or was changed: its SHA-256 is not the one in {MANIFEST}"
        )
    return manifest


def load_legacy(folder: Path, manifest: dict[str, object]) -> torch.nn.Module:
    """The model of such a folder, as transformers' loading raises for files that do not fit each other.

    Args:
        manifest: of `read_manifest`.
    """
    from accelerate import init_empty_weights
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config = AutoConfig.from_pretrained(folder)
    # Parameters without memory; buffers that are in no state_dict (rotary frequencies) are computed.
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config)
    replace_modules(model, empty_layers(model, manifest["layers"]))
    missing, unexpected = model.load_state_dict(load_file(folder / WEIGHTS), strict=False, assign=True)
    model.tie_weights()
    strays = [name for name in missing if name not in manifest["tied"]] + unexpected
    if strays:
        raise ValueError(f"its files do not fit its config.json: {', '.join(strays[:5])}")
    install_phase_hooks(model)
    remember_config(model, _config_of(manifest))
    if (folder / GENERATION).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.eval()


def _config_of(manifest: dict[str, object]) -> OutstandingSparseConfig:
    """The configuration that these layers come from, as far as they tell: the smoothing is in their weights."""
    layers = manifest["layers"]
    quantized = [fields for fields in layers.values() if fields["kind"] == "quantized"]
    pruned = {name: fields for name, fields in layers.items() if fields["pattern"] != "1:1"}
    patterns = Counter(fields["pattern"] for fields in pruned.values())
    return OutstandingSparseConfig(
        pattern=patterns.most_common(1)[0][0] if patterns else "2:4",
        targets=tuple(sorted({name.rpartition(".")[2] for name in pruned})),
        direction="none",
        dtype=quantized[0]["dtype"],
        unquantized={
            name.rpartition(".")[2]: EVERY_LAYER
            for name, fields in layers.items()
            if fields["kind"] == "pruned"
        },
    )
