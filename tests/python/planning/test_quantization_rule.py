"""What quantising a projection costs, against the model itself; and the rule that leaves some in 16 bits."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from amber_ext import AmberConfig, OutstandingSparseConfig, plan, quantize_
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.layers.sites import find_linears
from amber_ext.planning.quantization_rule import left_unquantized, plan_unquantized, quantization_losses

BATCHES = [torch.randint(3, 97, (2, 64), generator=torch.Generator().manual_seed(i)) for i in range(4)]
PLAIN = OutstandingSparseConfig(direction="none", targets=())


def test_the_rule_by_hand():
    """Loss for each multiply-accumulate: c 3, a 2, b 1. With c left a and b cost 0.4, with a as well b costs 0.2."""
    sites = [SimpleNamespace(name=name, macs=macs) for name, macs in (("a", 0.1), ("b", 0.2), ("c", 0.1))]
    losses = {"a": 0.2, "b": 0.2, "c": 0.3}

    def names(budget):
        return [site.name for site in left_unquantized(losses, sites, budget)]

    assert [names(budget) for budget in (1.0, 0.7, 0.5, 0.39, 0.2, 0.1, 0.0)] == [
        [], [], ["c"], ["c", "a"], ["c", "a"], ["c", "a", "b"], ["c", "a", "b"],
    ]  # fmt: skip


def test_predicted_costs_are_near_measured_ones(tiny_llama):
    """Against the KL divergence when one projection runs in 8 bits, in a model with opinions."""
    with torch.no_grad():
        tiny_llama.lm_head.weight.mul_(20)
    sites = find_linears(tiny_llama)
    losses = quantization_losses(tiny_llama, sites, BATCHES, PLAIN)
    ratios = []
    with torch.inference_mode():
        dense = [F.log_softmax(tiny_llama(b).logits.double(), -1) for b in BATCHES]
        for site in sites:
            layer = QuantizedLinear.from_linear(tiny_llama.get_submodule(site.name))
            handle = tiny_llama.get_submodule(site.name).register_forward_hook(
                lambda m, args, out, q=layer: q(args[0])
            )
            noisy = [F.log_softmax(tiny_llama(b).logits.double(), -1) for b in BATCHES]
            handle.remove()
            kl = sum((d.exp() * (d - n)).sum() for d, n in zip(dense, noisy, strict=True)) / 512
            ratios.append(losses[site.name] / float(kl))
    ratios = torch.tensor(ratios)
    assert 0.7 < ratios.median() < 1.3
    # Those of v and o may be too low: see the module's text.
    assert ((ratios > 1 / 3) & (ratios < 3)).float().mean() > 0.85, ratios


@pytest.mark.parametrize("direction", ["none", "smoothquant", "outstanding"])
def test_plans_leave_the_costliest(tiny_llama, direction):
    config = OutstandingSparseConfig(direction=direction, unquantized={"v_proj": "all"})
    before = {name: p.clone() for name, p in tiny_llama.named_parameters()}
    sites = [site for site in find_linears(tiny_llama) if site.projection != "v_proj"]
    losses = quantization_losses(tiny_llama, sites, BATCHES[:1], config)
    assert all(value > 0 for value in losses.values())
    budget = sum(losses.values()) / 2
    found = plan(tiny_llama, BATCHES[:1], config, quantization_loss=budget)
    quantised = [s for s in sites if not found.keeps_dtype(s.projection, s.layer)]
    assert 0 < len(quantised) < len(sites)
    assert sum(losses[site.name] for site in quantised) <= budget
    assert found.unquantized["v_proj"] == "all" and found.targets == config.targets
    assert plan_unquantized(tiny_llama, BATCHES[:1], config, 1e9) == config
    assert all(torch.equal(before[name], p) for name, p in tiny_llama.named_parameters())
    assert OutstandingSparseConfig.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    report = quantize_(tiny_llama, found, BATCHES[:1])
    assert sum(row.quantized for row in report.rows) == len(quantised)


def test_with_a_target_both_are_planned(tiny_llama):
    found = plan(tiny_llama, BATCHES[:1], OutstandingSparseConfig(), skip=1, quantization_loss=0.0)
    assert len(found.skip_layers["q_proj"]) == 1
    assert all(found.keeps_dtype(site.projection, site.layer) for site in find_linears(tiny_llama))


def test_bad_plans(tiny_llama):
    with pytest.raises(ValueError, match="quantization_loss: -1 is not allowed; it must be at least 0"):
        plan(tiny_llama, BATCHES[:1], quantization_loss=-1)
    with pytest.raises(ValueError, match="quantization_loss: nan is not allowed"):
        plan(tiny_llama, BATCHES[:1], quantization_loss=float("nan"))
    with pytest.raises(TypeError, match="it must be an OutstandingSparseConfig"):
        plan(tiny_llama, BATCHES[:1], AmberConfig(), quantization_loss=0.1)
    with pytest.raises(ValueError, match="coverage, skip, cost: exactly one"):
        plan(tiny_llama, BATCHES[:1], skip=1, cost=0.7, quantization_loss=0.1)
    with pytest.raises(ValueError, match="batches: it is empty"):
        plan(tiny_llama, [], quantization_loss=0.1)


def test_a_layer_that_no_token_reaches_is_named(tiny_llama):
    tiny_llama.model.layers[1].mlp.extra_proj = torch.nn.Linear(64, 64)
    message = "batches: no token of them reached the layer 'model.layers.1.mlp.extra_proj'"
    with pytest.raises(ValueError, match=message):
        plan(tiny_llama, BATCHES[:1], PLAIN, quantization_loss=0.1)
    with pytest.raises(ValueError, match=message):
        plan(tiny_llama, BATCHES[:1], cost=0.8)
    assert all(parameter.requires_grad for parameter in tiny_llama.parameters())
