"""`save_quantized` and `save_pruned`: a model as a folder, with transformers' own files, whole or not at all."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import torch

from amber_ext.folders import check_replaced_folder, replaced_folder
from amber_ext.integrations.model_card import CARD, MARK
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.layers.replace import replace_modules
from amber_ext.methods.checkpoint import describe_layers, empty_layers
from amber_ext.models import model_class

# What any save of a model writes: of an older model in the same folder nothing of this may stay.
_MODEL_FILES = re.compile(
    r"(config|generation_config|amber_ext|model\.safetensors\.index)\.json"
    r"|(model(-\d{5}-of-\d{5})?|amber_ext)\.safetensors"
)


def save_quantized(
    model: torch.nn.Module, folder: str | Path, tokenizer: object | None = None, card: str | None = None
) -> None:
    """Writes a model that `quantize_` made, so that `load_quantized` and ``from_pretrained`` give it back.

    It is written into a new folder beside ``folder``, which then takes its place: at any moment, also when the process is
    killed, ``folder`` holds the old model or the new one. Files in the old folder that are no model's stay.

    Args:
        model: a transformers model.
        folder: is made if it is not there. Neither a mount point nor the working directory.
        tokenizer: is saved beside the model when given.
        card: text for the folder's README.md (`model_card`); one that somebody wrote stays as it is.

    Raises:
        ValueError: the model has no quantised layers, or what would be saved could not be loaded again.
        OSError: it could not be written.
    """
    if not any(isinstance(module, QuantizedLinear) for module in model.modules()):
        raise ValueError("model: it has no quantised layers; call quantize_ first")
    check_replaced_folder("folder", folder)
    _check_class(model)
    _check_tensors(model)
    _save(model, folder, tokenizer, card)


def save_pruned(
    model: torch.nn.Module, folder: str | Path, tokenizer: object | None = None, card: str | None = None
) -> None:
    """Writes a model that `sparsify_` pruned, so that ``from_pretrained`` gives it back; its weights stay dense.

    Arguments and errors are those of `save_quantized`.
    """
    check_replaced_folder("folder", folder)
    _save(model, folder, tokenizer, card)


def _save(model: torch.nn.Module, folder: str | Path, tokenizer: object | None, card: str | None) -> None:
    from safetensors import SafetensorError

    from amber_ext.integrations.transformers import attach_config

    attach_config(model)
    keep_card = card is None or _is_somebodys(Path(folder) / CARD)
    try:
        with replaced_folder(folder, lambda name: not _MODEL_FILES.fullmatch(name)) as staging:
            model.save_pretrained(staging)
            if tokenizer is not None:
                tokenizer.save_pretrained(staging)
            if not keep_card:
                (staging / CARD).write_text(card, encoding="utf-8")
    except SafetensorError as error:
        raise OSError(f"folder: {str(folder)!r} cannot be written: {_one_line(error)}") from error
    except ValueError as error:
        raise ValueError(f"model: transformers does not save it: {_one_line(error)}") from error


def _is_somebodys(card: Path) -> bool:
    return card.exists() and MARK not in card.read_text(encoding="utf-8", errors="replace")


def _check_class(model: torch.nn.Module) -> None:
    name = type(model).__name__
    if model_class(name) is not type(model):
        raise ValueError(
            f"model: it could not be loaded again: {name} is not allowed; it must be a class of transformers"
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError(
            "model: it has adapters, of which alone transformers would save it; remove them first"
        )


def _check_tensors(model: torch.nn.Module) -> None:
    """Raises ValueError unless the class and the config make a model of the same tensors, as loading will."""
    try:
        with torch.device("meta"):
            twin = type(model)._from_config(_plain_config(model), dtype=model.dtype)
        replace_modules(twin, empty_layers(twin, describe_layers(model)))
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"model: it could not be loaded again: its config.json makes another model: {_one_line(error)}"
        ) from None
    wanted, fp32 = twin.state_dict(), _kept_in_fp32(twin, model.dtype)
    found = model.state_dict()
    for name in sorted(wanted.keys() ^ found.keys()):
        where = "this model" if name in wanted else f"a {type(model).__name__} of its config.json"
        raise ValueError(f"model: it could not be loaded again: '{name}' is not in {where}")
    for name, tensor in found.items():
        dtype = torch.float32 if fp32 and fp32.search(name) else wanted[name].dtype
        for what, this, other in (
            ("shape", tuple(tensor.shape), tuple(wanted[name].shape)),
            ("dtype", tensor.dtype, dtype),
        ):
            if this != other:
                raise ValueError(
                    f"model: it could not be loaded again: '{name}' has {what} {this}; in a "
                    f"{type(model).__name__} of its config.json and {model.dtype} it has {other}"
                )
        if tensor.is_meta:
            raise ValueError(f"model: '{name}' is offloaded; load the model without a device_map to save it")


def _plain_config(model: torch.nn.Module) -> object:
    config = copy.deepcopy(model.config)
    config.__dict__.pop("quantization_config", None)
    return config


def _kept_in_fp32(model: torch.nn.Module, dtype: torch.dtype) -> re.Pattern | None:
    """The names of what transformers loads in fp32 whatever dtype is asked for."""
    names = [name.replace("*", ".*") for name in model._get_dtype_plan(dtype)]
    return re.compile("|".join(names)) if names else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
