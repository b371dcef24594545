"""Folders as llm-compressor writes them, made with the compressed-tensors package itself."""

import pytest
import torch
from helpers import tiny_llama_config

LARGEST = {"int": 127.5, "float": 448.0}  # what a channel's largest weight becomes, there


def _write(
    folder, kind, *, weights=None, activations=None, ignore=("lm_head",), dtype=torch.float32, **config
):
    """A small Llama in 8 bits; ``weights`` and ``activations`` change fields of the scheme, None leaves the latter out."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny_llama_config(**config)).eval().to(dtype)
    by_channel = {"num_bits": 8, "type": kind, "symmetric": True, "strategy": "channel", **(weights or {})}
    by_token = {"num_bits": 8, "type": kind, "symmetric": True, "strategy": "token", "dynamic": True}
    scheme = QuantizationScheme(
        targets=["Linear"],
        weights=QuantizationArgs(**by_channel),
        input_activations=None if activations is None else QuantizationArgs(**{**by_token, **activations}),
    )
    apply_quantization_config(
        model, QuantizationConfig(config_groups={"group_0": scheme}, ignore=list(ignore))
    )
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            largest = LARGEST[kind] if by_channel["num_bits"] == 8 else 7.5
            absmax = module.weight.detach().abs().amax(1, keepdim=True)
            scale = module.weight_scale.data
            scale.copy_((absmax if scale.numel() > 1 else absmax.amax(0)) / largest)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(folder)
    return folder


@pytest.fixture(scope="session")
def write_folder():
    return _write


@pytest.fixture(scope="session", params=["int", "float"])
def kind(request):
    return request.param


@pytest.fixture(scope="session")
def w8a8(kind, tmp_path_factory):
    """A W8A8 folder, int8 or fp8."""
    return _write(tmp_path_factory.mktemp("w8a8") / "model", kind, activations={}, attention_bias=True)
