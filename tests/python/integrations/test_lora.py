"""LoRA on pruned layers."""

import pytest
import torch
from helpers import IDS, LAYERS, PROMPT, PRUNED, load, logits, steps

from amber_ext import AmberConfig
from amber_ext.layers.pruned_linear import AmberLinear


def lora(model):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj", "gate_proj", "down_proj"], init_lora_weights=False)
    return get_peft_model(model, config).eval()


def test_lora_on_pruned_layers(folder):
    pytest.importorskip("peft", reason="peft is not installed (pip install peft)")
    everything = AmberConfig(pattern="16:16")
    dense = lora(load(folder))
    kept = lora(load(folder, everything))
    assert isinstance(kept.base_model.model.model.layers[0].mlp.gate_proj.base_layer, AmberLinear)
    assert torch.allclose(logits(kept), logits(dense), atol=1e-6)  # nothing pruned: the dense LoRA model

    pruned = lora(load(folder, PRUNED))
    layer = pruned.base_model.model.model.layers[1].mlp.gate_proj
    x = torch.randn(5, 64)
    with torch.inference_mode():
        # The adapter sees the whole token, the frozen layer the pruned one.
        update = layer.lora_B["default"](layer.lora_A["default"](x)) * layer.scaling["default"]
        assert torch.equal(layer(x), layer.base_layer(x) + update)
    error = (logits(pruned) - logits(dense)).norm() / logits(dense).norm()
    assert 0.01 < error < 0.3
    with torch.inference_mode(), pruned.disable_adapter():
        assert torch.equal(pruned(IDS).logits, logits(load(folder, PRUNED)))


def test_phases_under_lora(folder, calls):
    """peft calls the language model's forward past its hooks."""
    pytest.importorskip("peft", reason="peft is not installed (pip install peft)")
    model = lora(load(folder, AmberConfig()))

    def of_base_layers():
        found = [call for call in calls if call[0] in ("sparse", "dense")]
        calls.clear()
        return steps(found)

    with torch.inference_mode():
        cache = model(PROMPT, use_cache=True).past_key_values
        assert of_base_layers() == [("sparse", 10)]
        model(PROMPT[:, :2], past_key_values=cache)
        model(PROMPT[:, :1], past_key_values=cache)
        assert of_base_layers() == [("sparse", 2), ("dense", 1)]
        model.generate(
            input_ids=PROMPT, max_new_tokens=3, min_new_tokens=3, do_sample=False, prefill_chunk_size=9
        )
        assert of_base_layers() == [("sparse", 9), ("sparse", 1), ("dense", 1), ("dense", 1)]
        assert LAYERS == 12
