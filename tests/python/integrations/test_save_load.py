"""transformers: load with a configuration, save, load again; in a fresh process; from GGUF."""

import subprocess
import sys

import pytest
import torch
from helpers import IDS, PROMPT, PRUNED, QUANTIZED, load, logits

from amber_ext import AmberConfig, quantize_, sparsify_
from amber_ext.integrations.transformers import AmberQuantConfig, attach_config
from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.quantized_linear import QuantizedLinear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {"device_map": {"": "cpu"}}, {"device_map": "auto"}], ids=str)
def test_a_pruned_model_is_what_sparsify_makes(folder, tmp_path, dtype, options):
    model = load(folder, PRUNED, dtype=dtype, **options)
    by_hand = load(folder, dtype=dtype).to(model.device)  # "auto" takes a GPU where there is one
    report = sparsify_(by_hand, PRUNED)
    assert torch.equal(logits(model), logits(by_hand))
    assert model.hf_quantizer.report == report
    for (name, layer), other in zip(model.named_modules(), by_hand.modules(), strict=True):
        assert type(layer) is type(other), name
        if isinstance(layer, AmberLinear):
            assert torch.equal(layer.channel_scale, other.channel_scale)

    model.save_pretrained(tmp_path / "pruned")
    again = load(tmp_path / "pruned", dtype=dtype, **options)
    assert torch.equal(logits(again), logits(model))
    assert again.config.quantization_config.config == PRUNED
    saved, plain = again.state_dict(), by_hand.state_dict()
    assert saved.keys() == plain.keys()  # a plain checkpoint: nothing of ours is in it
    assert all(torch.equal(saved[name], plain[name]) for name in plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_quantized_model_is_what_quantize_makes(folder, tmp_path, dtype):
    model = load(folder, QUANTIZED, dtype=dtype)
    by_hand = load(folder, dtype=dtype)
    report = quantize_(by_hand, QUANTIZED, [IDS])
    assert torch.equal(logits(model), logits(by_hand))
    assert model.hf_quantizer.report == report

    model.save_pretrained(tmp_path / "quantized")
    again = load(tmp_path / "quantized", dtype=dtype)
    assert torch.equal(logits(again), logits(model))
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype and torch.equal(tensor, after[name]), name
    again.save_pretrained(tmp_path / "twice")
    assert torch.equal(logits(load(tmp_path / "twice", dtype=dtype)), logits(model))
    with torch.inference_mode():
        first, second = (m.generate(PROMPT, max_new_tokens=6, do_sample=False) for m in (model, again))
    assert torch.equal(first, second)


def test_the_layer_kinds_of_a_saved_model(folder):
    model = load(folder, QUANTIZED)
    kinds = {name: type(m) for name, m in model.named_modules()}
    assert kinds["model.layers.0.self_attn.o_proj"] is torch.nn.Linear
    assert kinds["model.layers.2.mlp.down_proj"] is AmberLinear
    assert kinds["model.layers.1.mlp.down_proj"] is QuantizedLinear


@pytest.mark.slow
@pytest.mark.parametrize("config", [PRUNED, QUANTIZED], ids=["pruned", "quantized"])
def test_in_a_fresh_process(folder, tmp_path, config):
    model = load(folder, config, dtype=torch.float32)
    model.save_pretrained(tmp_path / "saved")
    torch.save({"ids": IDS, "logits": logits(model)}, tmp_path / "expected.pt")
    script = (
        "import torch\n{}from transformers import AutoModelForCausalLM\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(tmp_path / 'saved')!r}, dtype=torch.float32)\n"
        f"expected = torch.load({str(tmp_path / 'expected.pt')!r})\n"
        "with torch.inference_mode():\n"
        "    assert torch.equal(model(expected['ids']).logits, expected['logits'])\n"
    )

    def run(imports):
        command = [sys.executable, "-c", script.format(imports)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    result = run("import amber_ext\n")
    assert result.returncode == 0, result.stderr
    without = run("")
    # transformers names the missing package; 8-bit weights it refuses, a pruned checkpoint is a dense model.
    assert "Unknown quantization type, got amber_ext" in without.stderr
    assert without.returncode != 0
    expected = "AssertionError" if config is PRUNED else "RuntimeError: You set `ignore_mismatched_sizes`"
    assert expected in without.stderr


@pytest.mark.parametrize("config", [AmberConfig(pattern="8:16"), QUANTIZED], ids=["pruned", "quantized"])
def test_gguf(tmp_path, config):
    """transformers refuses a quantization_config beside a GGUF file: those models are pruned once they are loaded."""
    from transformers import AutoModelForCausalLM

    from amber_ext.models import _builtin_path, load_model

    path = _builtin_path()
    with pytest.raises(ValueError, match="combine Quantization and loading a model from a GGUF"):
        AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, quantization_config=AmberQuantConfig(PRUNED)
        )
    model = load_model(str(path), torch.float32).model
    ids = torch.arange(100, 140)[None]
    if config is QUANTIZED:
        quantize_(model, config, [ids])
    else:
        sparsify_(model, config)
    attach_config(model, config)
    model.save_pretrained(tmp_path / "saved")
    again = load(tmp_path / "saved", dtype=torch.float32)
    with torch.inference_mode():
        assert torch.equal(again(ids).logits, model(ids).logits)
    assert again.config.quantization_config.config == config
