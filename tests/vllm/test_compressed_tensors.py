"""compressed-tensors W8A8 checkpoints with pruning on top: prefill against `linear_w8a8`, decode against vLLM alone."""

import json

import pytest
import torch
from engine import engine, greedy, random_prompts
from models import save_dense
from safetensors.torch import load_file, save_file

from amber_ext import AmberConfig, channel_scale
from amber_ext.integrations.vllm import compressed_tensors
from amber_ext.integrations.vllm.step import phase_of
from amber_ext.ops.pattern import UNPRUNED, Pattern
from amber_ext.ops.quantization import quantize_weight
from amber_ext.ops.reference import linear_w8a8

LENGTHS = (5, 33, 100, 1, 257)
CONFIG = AmberConfig(pattern="8:16", skip_layers={"gate_proj": (1,)})
PARTS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def save_compressed(folder, dtype="int8", **activations):
    """As llm-compressor writes 8-bit weights with a scale a channel, and dynamic scales a token."""
    save_dense(folder)
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        values, scale = quantize_weight(tensors[name], dtype)
        tensors[name], tensors[f"{name}_scale"] = values, scale[:, None]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    common = {"num_bits": 8, "type": "int" if dtype == "int8" else "float", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": {**common, "strategy": "channel", "dynamic": False},
        "input_activations": {**common, "strategy": "token", "dynamic": True, **activations},
    }
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized" if dtype == "int8" else "float-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


@pytest.fixture
def calls(monkeypatch):
    """Name, input, phase and output of every call of a pruned layer in the engine."""
    recorded = []
    original = compressed_tensors.PrunedCompressedMethod.run

    def run(method, layer, x, bias):
        y = original(method, layer, x, bias)
        own = method.inner.apply(layer, x, bias)
        recorded.append((method.name, x.clone(), phase_of(x), y.clone(), own))
        return y

    monkeypatch.setattr(compressed_tensors.PrunedCompressedMethod, "run", run)
    return recorded


def expected(tensors, name, x):
    """Prefill of a merged layer by the reference."""
    parent, _, merged = name.rpartition(".")
    outputs = []
    for part in PARTS.get(merged, (merged,)):
        weight, scale = (tensors[f"{parent}.{part}.{t}"] for t in ("weight", "weight_scale"))
        pruned = part in CONFIG.targets and int(name.split(".")[2]) not in CONFIG.skip_layers.get(part, ())
        pattern = Pattern("8:16") if pruned else UNPRUNED
        factors = channel_scale(weight.float() * scale, CONFIG.score) if pruned else None
        outputs.append(linear_w8a8(x, weight, scale.flatten(), None, pattern, None, factors, "none"))
    return torch.cat(outputs, -1)


@pytest.mark.parametrize("dtype", ["int8", "e4m3"])
def test_pruning_on_top(tmp_path, calls, dtype):
    tensors = save_compressed(tmp_path, dtype)
    options = {"quantization": "amber_ext", "hf_overrides": {"amber_ext": CONFIG.to_dict()}}
    with engine(tmp_path, **options) as llm:
        greedy(llm, random_prompts(LENGTHS), 4)
    # Of gate_up_proj, that of layer 1 is vLLM's own.
    assert len({name for name, *_ in calls}) == 3 + 2 + 3
    assert {phase for _, _, phase, *_ in calls} == {"prefill", "decode"}
    for name, x, phase, y, own in calls:
        if phase == "decode":
            assert torch.equal(y, own)
        else:
            torch.testing.assert_close(y, expected(tensors, name, x), rtol=1e-5, atol=1e-5)
            assert not torch.allclose(y, own, rtol=1e-2, atol=1e-2)


def test_static_scales_are_refused(tmp_path):
    save_compressed(tmp_path, strategy="tensor", dynamic=False)
    with (
        pytest.raises(ValueError, match="layer '.*': CompressedTensorsW8A8Int8 is not allowed with pruning"),
        engine(tmp_path, quantization="amber_ext"),
    ):
        pass
