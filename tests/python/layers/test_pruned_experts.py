import copy
import io

import pytest
import torch
import torch.nn.functional as F

from amber_ext import AmberConfig, Pattern, decode, densify_, sparsify_
from amber_ext.layers.pruned_experts import AmberExperts
from amber_ext.ops import reference


def experts_by_hand(experts, x, index, weights, patterns):
    """Token by token, choice by choice."""
    out = torch.zeros_like(x)
    for t in range(len(x)):
        for choice, expert in enumerate(index[t].tolist()):
            gate_w, up_w = experts.gate_up_proj[expert].chunk(2)

            def product(row, weight, name):
                return F.linear(reference.nm_prune(row, patterns[name]) if name in patterns else row, weight)

            hidden = experts.act_fn(product(x[t], gate_w, "gate_proj")) * product(x[t], up_w, "up_proj")
            out[t] += weights[t, choice] * product(hidden, experts.down_proj[expert], "down_proj")
    return out


@pytest.mark.parametrize(
    "targets", [("gate_proj", "down_proj"), ("down_proj",), ("gate_proj", "up_proj", "down_proj")]
)
def test_pruned_experts_match_a_hand_written_loop(tiny_qwen3_moe, targets):
    config = AmberConfig(targets=targets, layer_patterns={"down_proj": {"8:16": (0,)}})
    patterns = {name: Pattern("8:16" if name == "down_proj" else "2:4") for name in targets}
    report = sparsify_(tiny_qwen3_moe, config)
    experts = tiny_qwen3_moe.model.layers[0].mlp.experts
    assert isinstance(experts, AmberExperts)
    rows = {r.projection: r for r in report.rows if r.layer == 0 and "experts" in r.name}
    assert {name for name, row in rows.items() if row.sparse} == set(targets)
    assert rows["down_proj"].reason == "8:16 magnitude"  # never the robust norm (paper, section 4)
    assert rows["down_proj"].macs == 2 * 64 * 32  # two experts a token

    torch.manual_seed(3)
    x, index = torch.randn(11, 64), torch.randint(0, 8, (11, 2))
    index[:, 1] = (index[:, 0] + 1) % 8
    weights = torch.rand(11, 2)
    with torch.inference_mode():
        want = experts_by_hand(experts, x, index, weights, patterns)
        assert torch.allclose(experts(x, index, weights), want, atol=1e-6)
        with decode():
            dense = densify_copy(tiny_qwen3_moe).model.layers[0].mlp.experts(x, index, weights)
            assert torch.equal(experts(x, index, weights), dense)


def densify_copy(model):
    model = copy.deepcopy(model)
    densify_(model)
    return model


def test_keeping_everything_is_the_dense_model(tiny_qwen3_moe):
    tokens = torch.randint(3, 97, (2, 9))
    keys = list(tiny_qwen3_moe.state_dict())
    with torch.inference_mode():
        dense = tiny_qwen3_moe(tokens).logits
        sparsify_(tiny_qwen3_moe, AmberConfig(pattern="4:4"))
        assert torch.allclose(tiny_qwen3_moe(tokens).logits, dense, atol=1e-5)
        assert list(tiny_qwen3_moe.state_dict()) == keys
        sparsify_(tiny_qwen3_moe, AmberConfig())
        assert not torch.allclose(tiny_qwen3_moe(tokens).logits, dense, atol=1e-3)
        densify_(tiny_qwen3_moe)
        assert torch.equal(tiny_qwen3_moe(tokens).logits, dense)


def test_a_pruned_model_is_saved_whole_and_copied(tiny_qwen3_moe):
    tokens = torch.randint(3, 97, (2, 9))
    sparsify_(tiny_qwen3_moe, AmberConfig())
    buffer = io.BytesIO()
    torch.save(tiny_qwen3_moe, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    with torch.inference_mode():
        want = tiny_qwen3_moe(tokens).logits
        for model in (loaded, copy.deepcopy(tiny_qwen3_moe)):
            assert torch.equal(model(tokens).logits, want)
            experts = model.model.layers[0].mlp.experts
            assert isinstance(experts, AmberExperts)
            assert experts.down_proj is not tiny_qwen3_moe.model.layers[0].mlp.experts.down_proj


def test_skips_apply_to_experts(tiny_qwen3_moe):
    report = sparsify_(tiny_qwen3_moe, AmberConfig(skip_layers={"gate_proj": (1,)}))
    sparse = {row.name for row in report.rows if row.sparse and row.layer == 1}
    assert sparse == {"model.layers.1.self_attn.q_proj", "model.layers.1.mlp.experts.down_proj"}


def test_unsupported_fused_experts_are_refused_but_only_when_targeted(snapshot):
    from transformers import MixtralConfig, MixtralForCausalLM

    model = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=97,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_local_experts=4,
        )
    )
    unchanged = snapshot(model)
    with pytest.raises(ValueError, match="MixtralExperts cannot be pruned; supported: Qwen3MoeExperts"):
        sparsify_(model, AmberConfig())
    unchanged()
    report = sparsify_(model, AmberConfig(targets=("q_proj",)))
    assert [row.projection for row in report.rows if row.sparse] == ["q_proj"]
