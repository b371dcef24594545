"""Weight pruning, the baseline: against a plain sort, group by group."""

import pytest
import torch

from amber_ext import AmberConfig, sparsify_
from amber_ext.evaluation.weight_pruning import prune_weights_

NAME = "model.layers.1.mlp.down_proj"
BATCHES = [torch.randint(3, 97, (2, 16), generator=torch.Generator().manual_seed(i)) for i in range(2)]


def by_hand(weight, factors, n, m):
    result = torch.zeros_like(weight)
    scores = weight.double().abs() * factors
    for row in range(weight.shape[0]):
        for begin in range(0, weight.shape[1], m):
            kept = begin + scores[row, begin : begin + m].argsort(descending=True)[:n]
            result[row, kept] = weight[row, kept]
    return result


@pytest.mark.parametrize("pattern", ["2:4", "4:8"])
@pytest.mark.parametrize("score", ["magnitude", "wanda"])
def test_keeps_what_a_sort_keeps(tiny_llama, pattern, score):
    linear = tiny_llama.get_submodule(NAME)
    before = {name: tensor.clone() for name, tensor in tiny_llama.state_dict().items()}
    factors = torch.ones(linear.in_features, dtype=torch.float64)
    if score == "wanda":
        inputs = []
        handle = linear.register_forward_pre_hook(lambda m, args: inputs.append(args[0]))
        with torch.inference_mode():
            for batch in BATCHES:
                tiny_llama(batch)
        handle.remove()
        factors = torch.cat([x.flatten(0, 1) for x in inputs]).double().square().sum(0).sqrt()
    want = by_hand(before[f"{NAME}.weight"], factors, *map(int, pattern.split(":")))
    prune_weights_(tiny_llama, [NAME], pattern, score, BATCHES if score == "wanda" else ())
    after = tiny_llama.state_dict()
    assert torch.equal(after.pop(f"{NAME}.weight"), want)
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert not linear._forward_pre_hooks


def test_refuses(tiny_llama):
    with pytest.raises(ValueError, match="score: 'l2' is not known; allowed: 'magnitude', 'wanda'"):
        prune_weights_(tiny_llama, [NAME], "2:4", "l2")
    with pytest.raises(ValueError, match="batches: it is empty"):
        prune_weights_(tiny_llama, [NAME], "2:4", "wanda", [])
    with pytest.raises(ValueError, match="K = 160 is not a multiple of M = 3"):
        prune_weights_(tiny_llama, [NAME], "1:3", "magnitude")
    with pytest.raises(ValueError, match="'4:2' is not allowed"):
        prune_weights_(tiny_llama, [NAME], "4:2", "magnitude")


def test_a_pruned_layer_is_not_needed(tiny_llama):
    """Calibration runs dense, sparsified or not."""
    dense = torch.nn.Module.state_dict(tiny_llama)[f"{NAME}.weight"].clone()
    prune_weights_(tiny_llama, [NAME], "2:4", "wanda", BATCHES)
    want = tiny_llama.get_submodule(NAME).weight.clone()
    with torch.no_grad():
        tiny_llama.get_submodule(NAME).weight.copy_(dense)
    sparsify_(tiny_llama, AmberConfig())
    prune_weights_(tiny_llama, [NAME], "2:4", "wanda", BATCHES)
    assert torch.equal(tiny_llama.get_submodule(NAME).weight, want)
