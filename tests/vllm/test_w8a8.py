"""8-bit models in the engine: every layer's outputs against the module that transformers runs, on the same inputs.

Greedy tokens are not compared: where two engines round differently in the last bit, an 8-bit value moves by a whole step.
"""

import pytest
import torch
from engine import engine, greedy, random_prompts
from models import load, save_dense
from transformers import AutoModelForCausalLM

from amber_ext import OutstandingSparseConfig, decode, prefill
from amber_ext.integrations.transformers import AmberQuantConfig
from amber_ext.integrations.vllm import quantized
from amber_ext.integrations.vllm.step import phase_of
from amber_ext.phase import run_rows

LENGTHS = (5, 33, 100, 1, 257)
PARTS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def save_quantized(dense, folder, config):
    batches = [torch.tensor([prompt]) for prompt in random_prompts((64, 64), seed=3)]
    quantization = AmberQuantConfig(config, batches)
    model = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32, quantization_config=quantization)
    model.save_pretrained(folder)
    return folder


def by_modules(model, name, x, context):
    """A merged layer's output, from the modules of the model that transformers loaded."""
    parent, _, merged = name.rpartition(".")
    modules = [model.get_submodule(f"{parent}.{part}") for part in PARTS.get(merged, (merged,))]
    with context(), torch.inference_mode():
        return torch.cat([module(x) for module in modules], -1)


@pytest.fixture
def calls(monkeypatch):
    """Name, input, phase and output of every call of an 8-bit layer in the engine."""
    recorded = []
    original = quantized.QuantizedLinearMethod.run

    def run(method, layer, x, bias):
        y = original(method, layer, x, bias)
        recorded.append((method.name, x.clone(), phase_of(x), y.clone()))
        return y

    monkeypatch.setattr(quantized.QuantizedLinearMethod, "run", run)
    return recorded


@pytest.mark.parametrize(
    "options, layers, dtype",
    [
        ({"pattern": "2:4"}, 12, "float32"),
        ({"pattern": "2:4"}, 12, "bfloat16"),
        ({"pattern": "8:16", "direction": "outstanding", "alpha": 0.1}, 12, "float32"),
        ({"pattern": "12:16w", "direction": "none", "rescale": "none"}, 12, "float32"),
        (
            {"pattern": "2:4", "unquantized": {"down_proj": "all"} | {f"{p}_proj": (1,) for p in "qkv"}},
            8,
            "float32",
        ),
    ],
    ids=["smoothquant", "bf16", "outstanding", "none", "partly"],
)
def test_folders_of_quantize(tmp_path, calls, options, layers, dtype):
    config = OutstandingSparseConfig(**options)
    folder = save_quantized(save_dense(tmp_path / "dense"), tmp_path / "w8a8", config)
    model = load(folder)
    prompts = random_prompts(LENGTHS)
    with engine(folder, max_num_batched_tokens=64, dtype=dtype) as llm:
        greedy(llm, prompts)
    assert len({name for name, *_ in calls}) == layers
    kinds = {phase if isinstance(phase, str) else "mixed" for _, _, phase, _ in calls}
    assert kinds == {"prefill", "decode", "mixed"}
    for name, x, phase, y in calls:
        sparse, dense = (
            lambda rows, context=context, name=name: by_modules(model, name, rows, context)
            for context in (prefill, decode)
        )
        assert torch.equal(y, run_rows(phase, sparse, dense, x)), name


def test_two_processes_are_refused_before_a_worker_starts(tmp_path):
    folder = save_quantized(save_dense(tmp_path / "dense"), tmp_path / "w8a8", OutstandingSparseConfig())
    match = "tensor_parallel_size: 2 is not allowed with 8-bit weights"
    with pytest.raises(ValueError, match=match), engine(folder, tensor_parallel_size=2):
        pass
