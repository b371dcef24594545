"""transformers: changed files, bad configurations and bad weights are refused by name."""

import json

import pytest
import torch
from helpers import IDS, PRUNED, QUANTIZED, load

from amber_ext import quantize_, sparsify_
from amber_ext.integrations.transformers import AmberQuantConfig, attach_config


def test_a_saved_file_that_was_tampered_with(folder, tmp_path):
    load(folder, QUANTIZED).save_pretrained(tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    original = json.loads(path.read_text())

    def rewritten(**changes):
        path.write_text(
            json.dumps({**original, "quantization_config": original["quantization_config"] | changes})
        )

    rewritten(config=original["quantization_config"]["config"] | {"score": "wanda"})
    with pytest.raises(
        ValueError, match="quantization_config: '.*config.json' is not the one that was saved"
    ):
        load(tmp_path / "saved")
    del original["quantization_config"]["config_sha256"]  # as in folders from before there was one
    rewritten(layers={})
    with pytest.raises(ValueError, match="quantization_config: it has no 'layers'"):
        load(tmp_path / "saved")
    layers = original["quantization_config"]["layers"]
    rewritten(layers={**layers, "model.layers.9.mlp.up_proj": {"kind": "pruned"}})
    with pytest.raises(ValueError, match="its 'layers' do not fit this model"):
        load(tmp_path / "saved")
    rewritten(layers={name: {"kind": "quantized"} for name in layers})
    with pytest.raises(ValueError, match="its 'layers' do not fit this model"):
        load(tmp_path / "saved")
    rewritten(kind="other")
    with pytest.raises(TypeError, match="config: dict is not allowed"):
        load(tmp_path / "saved")
    rewritten(config=original["quantization_config"]["config"] | {"pattern": "9:8"})
    with pytest.raises(ValueError, match="pattern: '9:8' is not allowed"):
        load(tmp_path / "saved")


@pytest.mark.parametrize("tensor", ["weight", "weight_scale", "channel_scale"])
@pytest.mark.parametrize("how", ["missing", "changed"])
def test_incomplete_and_changed_weights(folder, tmp_path, tensor, how):
    """transformers itself leaves missing tensors uninitialised."""
    from safetensors.torch import load_file, save_file

    load(folder, QUANTIZED).save_pretrained(tmp_path / "saved")
    path = tmp_path / "saved" / "model.safetensors"
    weights = load_file(path)
    name = f"model.layers.1.mlp.gate_proj.{tensor}"
    if how == "missing":
        del weights[name]
    else:
        weights[name].view(-1)[3] += 1
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="layer 'model.layers.1.mlp.gate_proj': its tensors are not those"):
        load(tmp_path / "saved")


@pytest.mark.parametrize(
    "name", ["model.embed_tokens", "model.norm", "lm_head", "model.layers.0.self_attn.o_proj"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_changed_tensors_are_noticed_in_any_dtype(folder, tmp_path, name, dtype):
    """Also those that are not in 8 bits, and where the model is asked for in another dtype than it was saved in."""
    from safetensors.torch import load_file, save_file

    load(folder, QUANTIZED).save_pretrained(tmp_path / "saved")
    load(tmp_path / "saved", dtype=dtype)
    path = tmp_path / "saved" / "model.safetensors"
    weights = load_file(path)
    weights[f"{name}.weight"].view(-1)[-1] *= 1.5  # the first row of embeddings is padding, zeros
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"layer '{name}': its tensors are not those that were saved"):
        load(tmp_path / "saved", dtype=dtype)


def test_the_config_may_be_changed_by_the_caller(folder, tmp_path):
    """What must not differ is the file."""
    load(folder, QUANTIZED).save_pretrained(tmp_path / "saved")
    assert load(tmp_path / "saved", use_cache=False).config.use_cache is False


def test_refuses():
    with pytest.raises(TypeError, match="config: NoneType is not allowed; it must be an AmberConfig"):
        AmberQuantConfig()
    with pytest.raises(ValueError, match="quant_method: 'gptq' is not allowed"):
        AmberQuantConfig(PRUNED, quant_method="gptq")


def test_errors_name_the_layer(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="layer 'model.layers.2.mlp.down_proj': weight: it contains NaN"):
        load(folder, PRUNED)
    with pytest.raises(ValueError, match="batches: None is not allowed; direction 'smoothquant' needs"):
        from transformers import AutoModelForCausalLM

        AutoModelForCausalLM.from_pretrained(folder, quantization_config=AmberQuantConfig(QUANTIZED))


def test_a_configuration_is_attached_only_where_it_fits(tiny_llama):
    with pytest.raises(
        ValueError, match="model: it has only dense layers; this configuration needs pruned ones"
    ):
        attach_config(tiny_llama, PRUNED)
    sparsify_(tiny_llama, PRUNED)
    with pytest.raises(
        ValueError, match="model: it has pruned layers; this configuration needs quantized ones"
    ):
        attach_config(tiny_llama, QUANTIZED)
    quantize_(tiny_llama, QUANTIZED, [IDS])
    with pytest.raises(
        ValueError, match="it has pruned and quantized layers; this configuration needs pruned"
    ):
        attach_config(tiny_llama, PRUNED)
