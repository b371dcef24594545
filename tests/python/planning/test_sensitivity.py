import pytest
import torch
import torch.nn.functional as F

from amber_ext import AmberConfig, channel_scale, plan, sensitivity, sparsify_
from amber_ext.ops import reference
from amber_ext.planning.paper_rule import plan_from
from amber_ext.planning.sensitivity import LayerSensitivity

BATCHES = [torch.randint(3, 97, (2, 16), generator=torch.Generator().manual_seed(i)) for i in range(3)]


def test_error_by_hand(tiny_llama):
    config = AmberConfig(pattern="4:8", score="wanda")
    measured = {entry.name: entry for entry in sensitivity(tiny_llama, BATCHES, config)}
    assert len(measured) == 7 * 4
    name = "model.layers.2.mlp.gate_proj"
    module = tiny_llama.get_submodule(name)
    inputs = []
    handle = module.register_forward_hook(lambda m, args, out: inputs.append(args[0]))
    with torch.inference_mode():
        for batch in BATCHES:
            tiny_llama(batch)
    handle.remove()
    x = torch.cat([i.flatten(0, 1) for i in inputs]).double()
    kept = x * reference.nm_mask(x.float(), config.pattern, channel_scale(module.weight, "wanda"))
    weight = module.weight.double()
    dense = F.linear(x, weight)
    want = ((dense - F.linear(kept, weight)).norm() / dense.norm()).item()
    assert measured[name].error == pytest.approx(want, rel=1e-4)
    assert (measured[name].layer, measured[name].projection) == (2, "gate_proj")


def test_measures_a_sparse_model_as_if_dense_and_leaves_it(tiny_llama):
    config = AmberConfig()
    want = sensitivity(tiny_llama, BATCHES, config)
    sparsify_(tiny_llama, config)
    modules = dict(tiny_llama.named_modules())
    hooks = {n: len(m._forward_hooks) for n, m in modules.items()}
    assert sensitivity(tiny_llama, BATCHES, config) == want
    assert dict(tiny_llama.named_modules()) == modules
    assert {n: len(m._forward_hooks) for n, m in modules.items()} == hooks


def test_experts_are_measured(tiny_qwen3_moe):
    measured = sensitivity(tiny_qwen3_moe, BATCHES[:1], AmberConfig())
    errors = {e.projection: e.error for e in measured if "layers.0.mlp.experts" in e.name}
    assert errors.keys() == {"gate_proj", "up_proj", "down_proj"}
    assert all(0.01 < error < 2 for error in errors.values())


def test_no_batches(tiny_llama):
    with pytest.raises(ValueError, match="batches: it is empty"):
        sensitivity(tiny_llama, [], AmberConfig())


def test_an_error_leaves_no_hooks(tiny_llama):
    hooks = {n: len(m._forward_hooks) for n, m in tiny_llama.named_modules()}
    with torch.no_grad():
        tiny_llama.model.layers[3].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or Inf"):
        sensitivity(tiny_llama, BATCHES[:1], AmberConfig())
    assert {n: len(m._forward_hooks) for n, m in tiny_llama.named_modules()} == hooks


def fake_sensitivity():
    """Layer 2 is the most sensitive, then 0, 3, 1."""
    rank = {2: 0.9, 0: 0.7, 3: 0.5, 1: 0.3}
    return [
        LayerSensitivity(f"model.layers.{layer}.{part}.{p}", p, layer, error + shift)
        for layer, error in rank.items()
        for part, p, shift in (
            ("self_attn", "q_proj", 0.05),
            ("mlp", "gate_proj", -0.05),
            ("mlp", "down_proj", 5 - error),
        )
    ]


def test_paper_rule_skips_the_most_sensitive_layers(tiny_llama):
    planned = plan_from(tiny_llama, fake_sensitivity(), AmberConfig(pattern="8:16"), skip=2)
    assert planned.skip_layers == {"q_proj": (0, 2), "gate_proj": (0, 2)}
    assert str(planned.pattern) == "8:16"
    assert plan_from(tiny_llama, fake_sensitivity(), AmberConfig(), skip=0).skip_layers == {}


def test_coverage_is_met_with_as_many_skips_as_fit(tiny_llama):
    full = sparsify_(tiny_llama, AmberConfig()).coverage
    for wanted in (full, full - 0.01, 0.45, 0.35, 0.01):
        planned = plan_from(tiny_llama, fake_sensitivity(), AmberConfig(), coverage=wanted)
        reached = sparsify_(tiny_llama, planned).coverage
        count = len(planned.skip_layers.get("q_proj", ()))
        assert reached >= wanted
        if count < 4:
            more = plan_from(tiny_llama, fake_sensitivity(), AmberConfig(), skip=count + 1)
            assert sparsify_(tiny_llama, more).coverage < wanted


def test_plan_measures(tiny_llama):
    planned = plan(tiny_llama, BATCHES, skip=1)
    measured = sensitivity(tiny_llama, BATCHES, AmberConfig())
    means = {
        layer: sum(e.error for e in measured if e.layer == layer and e.projection in ("q_proj", "gate_proj"))
        for layer in range(4)
    }
    worst = max(means, key=means.get)
    assert planned.skip_layers == {"q_proj": (worst,), "gate_proj": (worst,)}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"coverage": 0.5, "skip": 1}, "coverage, skip, cost: exactly one"),
        ({"coverage": 0.0}, r"coverage: 0.0 is not allowed; it must be in \(0, 1\]"),
        ({"coverage": 0.99}, "coverage: 99.0% cannot be reached; without skips it is"),
        ({"skip": 5}, "skip: 5 is not allowed; this model allows 0 to 4 layers"),
        ({"skip": -1}, "skip: -1 is not allowed"),
    ],
)
def test_bad_plans(tiny_llama, arguments, message):
    with pytest.raises(ValueError, match=message):
        plan(tiny_llama, BATCHES[:1], **arguments)


def test_plan_without_anything_to_skip(tiny_llama):
    with pytest.raises(ValueError, match="config.targets: down_proj has no q_proj or gate_proj"):
        plan(tiny_llama, BATCHES[:1], AmberConfig(targets=("down_proj",)), skip=1)
