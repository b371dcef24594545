"""Methods of others against cases by hand: thresholds, TEAL's greedy shares, top-k of a token, CLACT, the shift."""

import math

import pytest
import torch

from amber_ext import Pattern, decode
from amber_ext.evaluation.comparators.mitigation import clact_pruned, shift_pruned
from amber_ext.evaluation.comparators.unstructured import (
    MagnitudeHistogram,
    greedy_sparsities,
    input_histograms,
    largest_of_token,
    teal_uniform,
    thresholded,
)
from amber_ext.evaluation.prepare import Calibration, check_rows, prepared
from amber_ext.evaluation.variants import Row
from amber_ext.layers.sites import find_linears
from amber_ext.phase import install_phase_hooks, remove_phase_hooks

BATCHES = [torch.randint(3, 97, (2, 32), generator=torch.Generator().manual_seed(i)) for i in range(2)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_thresholds_are_quantiles_of_magnitudes(dtype):
    x = torch.randn(501, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[:5] = 0.0
    x[5] = -0.0
    histogram = MagnitudeHistogram()
    histogram.add(x[:200].reshape(2, 100))
    histogram.add(x[200:])
    magnitudes = x.abs().double().sort().values
    for share in (0.003, 0.01, 0.25, 0.5, 0.999, 1.0):
        wanted = magnitudes[math.ceil(share * 501) - 1]
        dropped = int((x.abs() < histogram.threshold(share)).sum())
        if dtype == torch.bfloat16:
            assert dropped == int((magnitudes <= wanted).sum())
        assert share * 501 - 1 <= dropped <= share * 501 + 8
    assert (x.abs() < histogram.threshold(0.0)).sum() == 0


def test_what_is_dropped_by_hand():
    x = torch.tensor([[0.5, -3.0, 1.0, float("nan"), 0.0, 2.0], [0.1, 0.2, -0.3, 0.4, 0.5, -0.6]])
    assert thresholded(1.0)(x).nan_to_num(9.0).tolist() == [[0, -3, 1, 9, 0, 2], [0] * 6]
    kept = largest_of_token(0.5)(x[1:])
    assert torch.equal(kept, torch.tensor([[0.0, 0, 0, 0.4, 0.5, -0.6]]))
    assert torch.equal(largest_of_token(1.0)(x[1:]), torch.zeros(1, 6))
    assert largest_of_token(1.0)(x[:0]).shape == (0, 6)


def test_clact_by_hand():
    """Channel norms over both tokens are 5, 1, 3 and 4: the second channel loses in each token, then the least product."""
    x = torch.tensor([[[3.0, 1.0, 3.0, 0.0], [-4.0, 0.0, 0.0, -4.0]]])
    pruned = clact_pruned(x, Pattern("2:4"))
    assert pruned.tolist() == [[[3, 0, 3, 0], [-4, 0, 0, -4]]]
    # By |x| alone 2 and 2.1 of the first token stay; the other token makes the first channel's norm large.
    x = torch.tensor([[1.9, 2.0, 2.1, 0.0], [90.0, 0.0, 0.0, 0.0]])
    assert clact_pruned(x, Pattern("2:4"))[0].tolist() == pytest.approx([1.9, 0, 2.1, 0])
    assert clact_pruned(torch.zeros(3, 8), Pattern("2:4")).eq(0).all()


def test_the_shift_by_hand():
    """The lower median of 1, 2, 3, 10 is 2; what is left of -1, 0, 1, 8 is 8 and, at a tie, the lower index."""
    x = torch.tensor([[1.0, 2.0, 3.0, 10.0]])
    assert shift_pruned(x, Pattern("2:4")).tolist() == [[1, 2, 2, 10]]
    # A token that is one number survives whole.
    assert torch.equal(shift_pruned(torch.full((2, 8), 7.0), Pattern("2:4")), torch.full((2, 8), 7.0))


def test_greedy_shares_meet_the_target_in_every_block(tiny_llama):
    sites = [s for s in find_linears(tiny_llama) if s.projection in ("q_proj", "gate_proj", "down_proj")]
    histograms = input_histograms(tiny_llama, sites, BATCHES)
    found = greedy_sparsities(tiny_llama, sites, BATCHES, histograms, 0.33)
    for layer in range(4):
        inside = [site for site in sites if site.layer == layer]
        size = sum(site.macs for site in inside)
        assert sum(found[s.name] * s.macs for s in inside) / size == pytest.approx(0.33)
        assert all(0 <= found[site.name] <= 1 + 1e-9 for site in inside)
    assert len(set(found.values())) > 1


def test_thresholds_drop_their_share_and_decode_is_dense(tiny_llama):
    dense = tiny_llama(BATCHES[0]).logits
    name, seen = "model.layers.0.mlp.gate_proj", []
    with prepared(tiny_llama, Row("teal_uniform", "2:4"), Calibration(BATCHES)) as (model, coverage):
        assert coverage == pytest.approx(0.5714, abs=1e-3)
        module = model.get_submodule(name)
        handle = module.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
        model(BATCHES[0])
        with decode():
            assert torch.equal(model(BATCHES[0]).logits, dense)
        handle.remove()
    assert float(seen[0].eq(0).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(tiny_llama(BATCHES[0]).logits, dense)
    assert not any(module._forward_pre_hooks for module in tiny_llama.modules())


def test_what_fails_leaves_no_hooks(tiny_llama):
    with pytest.raises(ValueError, match="batches: it is empty"):
        teal_uniform(tiny_llama, find_linears(tiny_llama), [], Pattern("2:4"))
    assert not any(module._forward_pre_hooks for module in tiny_llama.modules())
    install_phase_hooks(tiny_llama)
    remove_phase_hooks(tiny_llama)


def test_fused_experts_are_refused(tiny_qwen3_moe):
    for method in ("teal", "weight_wanda"):
        with pytest.raises(ValueError, match=r"methods: .* does not know fused experts \('model.layers"):
            check_rows(tiny_qwen3_moe, [Row(method, "2:4")])
