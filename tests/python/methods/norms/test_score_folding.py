"""Scores folded into norms: the same choice by plain magnitude, ties and rounding aside, and the same product."""

import pytest
import torch

from amber_ext import AmberConfig, channel_scale, densify_, nm_mask, sparsify_
from amber_ext.layers.sites import find_linears

IDS = torch.randint(3, 97, (2, 48), generator=torch.Generator().manual_seed(5))


@pytest.fixture
def uneven(tiny_llama):
    """A model whose channels differ: random weights alone have scores near 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for site in find_linears(tiny_llama):
            weight = tiny_llama.get_submodule(site.name).weight
            weight.mul_(torch.rand(weight.shape[1], generator=generator) * 3 + 0.2)
        for name, parameter in tiny_llama.named_parameters():
            if "layernorm" in name:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 2 - 1)
                parameter[3] = 0.0
    return tiny_llama


def inputs_of(model, names):
    found, handles = {}, []
    for name in names:
        module = model.get_submodule(name)
        handles.append(module.register_forward_pre_hook(lambda m, args, n=name: found.update({n: args[0]})))
    with torch.inference_mode():
        model(IDS)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("dtype, rounding", [(torch.float32, 2.0**-21), (torch.bfloat16, 2.0**-6)])
@pytest.mark.parametrize("pattern", ["2:4", "8:16"])
def test_magnitudes_choose_as_the_scores_did(uneven, dtype, rounding, pattern):
    """Layer by layer on the same hidden state. Where the choice differs, the scores were equal up to rounding."""
    model = uneven.to(dtype)
    layer = model.model.layers[1]
    hidden = torch.randn(64, 64, generator=torch.Generator().manual_seed(2)).to(dtype)
    readers = {
        "q_proj": (layer.input_layernorm, layer.self_attn),
        "gate_proj": (layer.post_attention_layernorm, layer.mlp),
    }
    before = {}
    with torch.no_grad():
        for name, (norm, block) in readers.items():
            x, scale = norm(hidden), channel_scale(getattr(block, name).weight, "robust_norm")
            before[name] = (nm_mask(x, pattern, scale), x.float().abs() * scale, scale)
        report = sparsify_(model, AmberConfig(pattern=pattern), fold_scores=True)
        assert report.config.projection_scores == {"q_proj": "magnitude", "gate_proj": "magnitude"}
        for name, (norm, block) in readers.items():
            mask, scores, scale = before[name]
            pruned = getattr(block, name)
            assert pruned.score == "magnitude" and pruned.channel_scale is None
            assert scale.max() > 2 * scale.min()
            now = nm_mask(norm(hidden), pattern)
            m = pruned.pattern.m
            kept, dropped = (scores.masked_fill(~mask, torch.inf), scores.masked_fill(mask, 0.0))
            margin = kept.unflatten(1, (-1, m)).amin(-1) / dropped.unflatten(1, (-1, m)).amax(-1)
            differs = (mask != now).unflatten(1, (-1, m)).any(-1)
            assert float(margin[differs].max() if differs.any() else 1.0) <= 1 + rounding
            assert float(differs.float().mean()) < (1e-3 if dtype == torch.float32 else 0.1)
            # Without the fold magnitudes choose otherwise.
            x = hidden if dtype == torch.float32 else hidden.float()
            assert (nm_mask(x.to(dtype), pattern) != mask).float().mean() > 0.05
    assert model.model.layers[0].mlp.down_proj.score == "robust_norm"


def test_the_model_computes_the_same(uneven):
    model = uneven
    dense = model(IDS).logits
    sparsify_(model, AmberConfig())
    pruned = model(IDS).logits
    densify_(model)
    sparsify_(model, AmberConfig(), fold_scores=True)
    assert torch.allclose(model(IDS).logits, pruned, atol=1e-4 * float(pruned.detach().abs().max()))
    densify_(model)
    assert torch.allclose(model(IDS).logits, dense, atol=1e-4 * float(dense.detach().abs().max()))


def test_the_folded_model_is_sparsified_again_as_its_report_says(uneven):
    report = sparsify_(uneven, AmberConfig(), fold_scores=True)
    want = uneven(IDS).logits
    config = AmberConfig.from_dict(report.config.to_dict())
    densify_(uneven)
    sparsify_(uneven, config)
    assert torch.equal(uneven(IDS).logits, want)


def test_skipped_layers_keep_their_norms(uneven):
    before = {name: p.clone() for name, p in uneven.named_parameters()}
    sparsify_(uneven, AmberConfig(skip_layers={"q_proj": (0,), "gate_proj": (0,)}), fold_scores=True)
    after = dict(uneven.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    readers = (
        "input_layernorm",
        "q_proj",
        "k_proj",
        "v_proj",
        "post_attention_layernorm",
        "gate_proj",
        "up_proj",
    )
    assert changed == {
        name for name in before if any(part in name for part in readers) and "layers.0." not in name
    }


@pytest.mark.parametrize(
    "config, message",
    [
        (
            AmberConfig(score="magnitude"),
            "fold_scores: True is not allowed here: no pruned projection with a channel",
        ),
        (AmberConfig(targets=("down_proj",)), "fold_scores: True is not allowed here"),
        (
            AmberConfig(targets=("q_proj", "k_proj")),
            r"fold_scores: 'model.layers.0.self_attn.q_proj' and '.*k_proj' read the same norm, which can take the",
        ),
    ],
)
def test_what_cannot_be_folded_leaves_the_model_as_it_was(uneven, config, message):
    before = {name: p.clone() for name, p in uneven.named_parameters()}
    with pytest.raises(ValueError, match=message):
        sparsify_(uneven, config, fold_scores=True)
    assert all(torch.equal(before[name], p) for name, p in uneven.named_parameters())
    assert all(type(m).__name__ != "AmberLinear" for m in uneven.modules())


def test_weights_that_others_share_are_not_folded(uneven):
    uneven.model.layers[2].self_attn.q_proj.weight = uneven.model.layers[1].self_attn.q_proj.weight
    with pytest.raises(
        ValueError, match=r"fold_scores: 'model.layers.1.self_attn.q_proj' does not read a norm that can"
    ):
        sparsify_(uneven, AmberConfig(), fold_scores=True)
    # Left out, the rest folds.
    config = AmberConfig(skip_layers={"q_proj": (1, 2)})
    assert sparsify_(uneven, config, fold_scores=True).config.projection_scores["q_proj"] == "magnitude"
