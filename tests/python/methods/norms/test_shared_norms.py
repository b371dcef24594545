"""Smoothing factors are folded into a norm only where nothing else is changed with it."""

import pytest
import torch

from amber_ext import OutstandingSparseConfig, quantize_

IDS = torch.randint(3, 97, (2, 64), generator=torch.Generator().manual_seed(0))


def layer_twice(layers, model):
    layers[2] = layers[0]


def norm_twice(layers, model):
    layers[1].input_layernorm = layers[0].input_layernorm


def weight_of_another_norm(layers, model):
    layers[1].input_layernorm.weight = layers[0].input_layernorm.weight


def weight_of_the_last_norm(layers, model):
    model.norm.weight = layers[3].post_attention_layernorm.weight


def memory_of_another_norm(layers, model):
    layers[1].input_layernorm.weight.data = layers[0].input_layernorm.weight.data


def computed_weight(layers, model):
    class Same(torch.nn.Module):
        def forward(self, weight):
            return weight.clone()

        def right_inverse(self, weight):
            return weight

    torch.nn.utils.parametrize.register_parametrization(layers[0].input_layernorm, "weight", Same())


@pytest.mark.parametrize("direction", ["outstanding", "smoothquant"])
@pytest.mark.parametrize(
    "share, folded",
    [
        (lambda layers, model: None, 8),
        (layer_twice, 4),
        (norm_twice, 6),
        (weight_of_another_norm, 6),
        (weight_of_the_last_norm, 7),
        (memory_of_another_norm, 6),
        (computed_weight, 7),
    ],
)
def test_shared_norms_are_not_folded_into(tiny_llama, share, folded, direction):
    layers = tiny_llama.model.layers
    for layer in layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight.data.uniform_(0.5, 1.5)
    share(layers, tiny_llama.model)
    with torch.no_grad():
        want = tiny_llama(IDS, use_cache=False).logits
        config = OutstandingSparseConfig(pattern="16:16", direction=direction, alpha=0.5)
        report = quantize_(tiny_llama, config, [IDS])
        found = tiny_llama(IDS, use_cache=False).logits
    assert (found - want).norm() / want.norm() < 0.03
    norms = {row.smoothing for row in report.rows} - {"on the fly"}
    assert len(norms) == folded
