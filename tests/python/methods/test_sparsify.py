import subprocess
import sys

import pytest
import torch

from amber_ext import AmberConfig, AmberLinear, densify_, sparsify_
from amber_ext.ops.scores import channel_scale

ALL_SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def test_prunes_the_targets_and_reports(tiny_llama):
    keys = list(tiny_llama.state_dict())
    parameters = dict(tiny_llama.named_parameters())
    config = AmberConfig(skip_layers={"q_proj": (0, 3), "gate_proj": (3,)})
    report = sparsify_(tiny_llama, config)

    sparse = {name for name, module in tiny_llama.named_modules() if isinstance(module, AmberLinear)}
    expected = {f"model.layers.{i}.mlp.down_proj" for i in range(4)}
    expected |= {f"model.layers.{i}.mlp.gate_proj" for i in range(3)}
    expected |= {f"model.layers.{i}.self_attn.q_proj" for i in (1, 2)}
    assert sparse == expected == {row.name for row in report.rows if row.sparse}
    assert list(tiny_llama.state_dict()) == keys
    assert all(parameter is parameters[name] for name, parameter in tiny_llama.named_parameters())

    reasons = {row.name: row.reason for row in report.rows}
    assert reasons["model.layers.0.self_attn.q_proj"] == "skipped layer"
    assert reasons["model.layers.0.self_attn.k_proj"] == "not a target"
    assert reasons["model.layers.0.mlp.down_proj"] == "2:4 robust_norm"
    assert "lm_head" not in reasons
    q, mlp = 64 * 64, 64 * 160
    total = 4 * (2 * q + 2 * 64 * 32 + 3 * mlp)
    assert report.coverage == pytest.approx((4 * mlp + 3 * mlp + 2 * q) / total)
    assert report.extra_bytes == 4 * (4 * 160 + 3 * 64 + 2 * 64)
    assert "coverage" in str(report) and report.to_dict()["config"]["pattern"] == "2:4"
    for name in sparse:
        layer = tiny_llama.get_submodule(name)
        assert torch.equal(layer.channel_scale, channel_scale(layer.weight, "robust_norm"))


def test_output_is_the_hand_pruned_model(tiny_llama):
    from amber_ext.ops.reference import nm_prune

    config = AmberConfig(pattern="4:8", score="wanda", targets=ALL_SEVEN)
    tokens = torch.randint(3, 97, (2, 13))
    hooks = []
    for name, module in tiny_llama.named_modules():
        if name.rpartition(".")[2] in ALL_SEVEN:
            scale = channel_scale(module.weight, "wanda")
            hooks.append(
                module.register_forward_pre_hook(
                    lambda m, args, scale=scale: (nm_prune(args[0], config.pattern, scale),)
                )
            )
    with torch.inference_mode():
        dense_with_hooks = tiny_llama(tokens).logits
        for hook in hooks:
            hook.remove()
        dense = tiny_llama(tokens).logits
        sparsify_(tiny_llama, config)
        pruned = tiny_llama(tokens).logits
        assert torch.allclose(pruned, dense_with_hooks, atol=1e-5)
        assert not torch.allclose(pruned, dense, atol=1e-2)
        densify_(tiny_llama)
        assert torch.equal(tiny_llama(tokens).logits, dense)


def test_sparsify_again_replaces_and_densify_restores(tiny_llama):
    sparsify_(tiny_llama, AmberConfig(targets=("q_proj",)))
    sparsify_(tiny_llama, AmberConfig(pattern="8:16", targets=("up_proj",)))
    sparse = [n for n, m in tiny_llama.named_modules() if isinstance(m, AmberLinear)]
    assert sparse == [f"model.layers.{i}.mlp.up_proj" for i in range(4)]
    assert len(tiny_llama.model._forward_pre_hooks) == 1
    densify_(tiny_llama)
    densify_(tiny_llama)
    assert not any(isinstance(m, AmberLinear) for m in tiny_llama.modules())
    assert not tiny_llama.model._forward_pre_hooks and not tiny_llama.model._forward_hooks


def test_a_layer_whose_k_does_not_fit_stays_dense(tiny_llama):
    report = sparsify_(tiny_llama, AmberConfig(pattern="3:6", targets=("down_proj",)))
    assert report.coverage == 0
    assert {r.reason for r in report.rows if r.projection == "down_proj"} == {
        "K = 160 is not a multiple of M = 6"
    }
    mixed = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Linear(8, 6))
    report = sparsify_(mixed, AmberConfig(targets=("0", "1")))
    assert [row.sparse for row in report.rows] == [False, True]


def test_subclasses_and_replaced_forwards_stay_dense_with_a_reason():
    class Special(torch.nn.Linear):
        pass

    model = torch.nn.ModuleDict({"a": Special(8, 8), "b": torch.nn.Linear(8, 8), "c": torch.nn.Linear(8, 8)})
    model["b"].forward = lambda x: x
    report = sparsify_(model, AmberConfig(targets=("a", "b", "c")))
    assert [row.sparse for row in report.rows] == [False, False, True]
    assert "class Special is not nn.Linear" in report.rows[0].reason
    assert "forward was replaced" in report.rows[1].reason


@pytest.mark.parametrize(
    "config, message",
    [
        (
            AmberConfig(targets=("q_proj", "qkv")),
            "targets: 'qkv' is not in this model; it has: down_proj, gate_proj",
        ),
        (
            AmberConfig(skip_layers={"q_proj": (4,)}),
            "skip_layers: q_proj layer 4 is not in this model; it has 0 to 3",
        ),
    ],
)
def test_errors_leave_the_model_as_it_was(tiny_llama, snapshot, config, message):
    unchanged = snapshot(tiny_llama)
    with pytest.raises(ValueError, match=message) as error:
        sparsify_(tiny_llama, config)
    assert "\n" not in str(error.value)
    unchanged()


def test_all_or_nothing_when_a_late_layer_fails(tiny_llama):
    with torch.no_grad():
        tiny_llama.model.layers[3].mlp.down_proj.weight[0, 0] = float("nan")
    modules = dict(tiny_llama.named_modules())
    with pytest.raises(
        ValueError, match="layer 'model.layers.3.mlp.down_proj': weight: it contains NaN or Inf"
    ):
        sparsify_(tiny_llama, AmberConfig())
    assert all(module is modules[name] for name, module in tiny_llama.named_modules())
    assert not tiny_llama.model._forward_pre_hooks


@pytest.mark.parametrize("model", [torch.nn.ReLU(), torch.nn.Sequential(), torch.nn.Linear(8, 8)])
def test_a_model_without_linears(model):
    with pytest.raises(ValueError, match="contains no linear layers to prune"):
        sparsify_(model, AmberConfig())


PEAK_MEMORY = """
import resource, torch
from amber_ext import AmberConfig, channel_scale, sparsify_

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

model = torch.nn.ModuleDict({f"l{i}": torch.nn.Linear(4096, 4096) for i in range(6)})
channel_scale(torch.randn(64, 64), "robust_norm")
before = peak()
pointers = [m.weight.data_ptr() for m in model.values()]
sparsify_(model, AmberConfig(targets=tuple(model)))
assert [m.weight.data_ptr() for m in model.values()] == pointers
print(peak() - before)
"""


def test_copies_no_weight():
    # In a process of its own: peak memory never falls.
    run = subprocess.run([sys.executable, "-c", PEAK_MEMORY], capture_output=True, text=True, check=True)
    one_layer = 4096 * 4096 * 4
    assert int(run.stdout) < 3 * one_layer  # six layers' weights would be twice that


def _meta_model(cls, config):
    with torch.device("meta"):
        return cls(config)


@pytest.mark.parametrize(
    "preset, coverage",
    [("llama-3.1-8b", 0.561), ("qwen2-7b", 0.576), ("qwen3-30b-a3b", 0.569)],
)
def test_presets_reach_the_coverage_of_the_paper(preset, coverage):
    import transformers as tf

    if preset == "llama-3.1-8b":
        config = tf.LlamaConfig(
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            vocab_size=128256,
        )
        model = _meta_model(tf.LlamaForCausalLM, config)
    elif preset == "qwen2-7b":
        config = tf.Qwen2Config(
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            vocab_size=152064,
        )
        model = _meta_model(tf.Qwen2ForCausalLM, config)
    else:
        config = tf.Qwen3MoeConfig(
            hidden_size=2048,
            intermediate_size=6144,
            moe_intermediate_size=768,
            num_hidden_layers=48,
            num_attention_heads=32,
            num_key_value_heads=4,
            head_dim=128,
            num_experts=128,
            num_experts_per_tok=8,
            vocab_size=151936,
        )
        model = _meta_model(tf.Qwen3MoeForCausalLM, config)
    # Scores need weights; coverage does not.
    report = sparsify_(model, AmberConfig.preset(preset, score="magnitude"))
    assert report.coverage == pytest.approx(coverage, abs=6e-4)
