"""Models whose weights change after they were pruned."""

import pytest
import torch
from helpers import IDS, load, logits

from amber_ext import AmberConfig, OutstandingSparseConfig, quantize_, refresh_, sparsify_


def test_merged_adapters(folder, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed (pip install peft)")
    torch.manual_seed(1)
    adapter = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = load(folder, AmberConfig(pattern="2:4"))
    merged = peft.get_peft_model(model, adapter).merge_and_unload()
    found = logits(merged)
    sparsify_(merged, AmberConfig(pattern="2:4"))
    assert torch.equal(logits(merged), found)
    merged.save_pretrained(tmp_path / "merged")
    assert torch.equal(logits(load(tmp_path / "merged")), found)


def test_an_edited_or_cast_model_loads_as_it_was_saved(folder, tmp_path):
    model = load(folder, AmberConfig(pattern="2:4"), dtype=torch.float32)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate_proj.weight[:, ::3] *= 3
    frequencies = model.model.rotary_emb.inv_freq
    model.to(torch.bfloat16)
    model.model.rotary_emb.inv_freq = frequencies  # transformers loads them in fp32
    found = logits(model)
    model.save_pretrained(tmp_path / "saved")
    assert torch.equal(logits(load(tmp_path / "saved", dtype=torch.bfloat16)), found)


def test_refresh_of_a_model(tiny_llama):
    sparsify_(tiny_llama, AmberConfig(pattern="2:4"))
    for layer in tiny_llama.model.layers:
        layer.self_attn.q_proj.weight.data[:, ::3] *= 10
    stale = logits(tiny_llama)
    refresh_(tiny_llama)
    found = logits(tiny_llama)
    sparsify_(tiny_llama, AmberConfig(pattern="2:4"))
    assert torch.equal(logits(tiny_llama), found) and not torch.equal(found, stale)
    refresh_(torch.nn.Linear(4, 4))  # nothing to do
    quantize_(tiny_llama, OutstandingSparseConfig(), [IDS])
    found = logits(tiny_llama)
    refresh_(tiny_llama)
    assert torch.equal(logits(tiny_llama), found)


def test_a_layer_that_stands_in_a_model_twice_stays_one():
    linear = torch.nn.Linear(64, 64)
    model = torch.nn.ModuleDict({"a": linear, "b": linear, "c": torch.nn.Linear(64, 64)})
    report = sparsify_(model, AmberConfig(targets=("a", "b", "c")))
    assert model["a"] is model["b"] is not model["c"]
    assert report.bytes_before == 2 * (64 * 64 + 64) * 4
    assert len(report.rows) == 3
