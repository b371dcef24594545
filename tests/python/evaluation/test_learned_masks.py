"""MaskPro and LBC: draws, gradients, schedules and removals against cases by hand."""

import itertools
import math

import pytest
import torch

from amber_ext import Pattern, nm_mask
from amber_ext.evaluation.comparators.lbc import (
    best,
    check_pattern,
    lbc_,
    left_after,
    mask_of,
    members,
    updated_scores,
)  # fmt: skip
from amber_ext.evaluation.comparators.maskpro import Baseline, draw, log_probability_gradient, maskpro_
from amber_ext.evaluation.weight_pruning import input_norms

NAMES = ["model.layers.1.mlp.down_proj", "model.layers.2.self_attn.q_proj"]
BATCHES = [torch.randint(3, 97, (1, 40), generator=torch.Generator().manual_seed(i)) for i in range(2)]


def test_draws_have_the_probabilities_of_draws_without_replacement():
    logits = torch.tensor([0.0, math.log(2.0), math.log(3.0), math.log(4.0)])
    count = 200_000
    drawn = draw(logits.expand(count, 4), 2, torch.Generator().manual_seed(0))
    for first, second in itertools.permutations(range(4), 2):
        p = torch.tensor([0.1, 0.2, 0.3, 0.4])
        want = float(p[first] * p[second] / (1 - p[first]))
        found = float(((drawn[:, 0] == first) & (drawn[:, 1] == second)).float().mean())
        assert found == pytest.approx(want, abs=4 * math.sqrt(want / count))


def test_the_gradient_by_hand():
    """Equal logits, places 2 and 0 drawn of 4: 1 - 1/4 at the first; of what was left, 1 - 1/3 at the second."""
    gradient = log_probability_gradient(torch.zeros(1, 4), torch.tensor([[2, 0]]))
    assert gradient[0].tolist() == pytest.approx(
        [1 - 1 / 4 - 1 / 3, -1 / 4 - 1 / 3, 1 - 1 / 4, -1 / 4 - 1 / 3]
    )


def test_the_gradient_is_that_of_the_logarithm():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(50, 4, generator=generator, dtype=torch.float64).requires_grad_()
    drawn = draw(logits.detach().float(), 2, generator)
    first = logits.log_softmax(-1).gather(1, drawn[:, :1])
    second = logits.scatter(1, drawn[:, :1], -torch.inf).log_softmax(-1).gather(1, drawn[:, 1:])
    (first + second).sum().backward()
    assert torch.allclose(log_probability_gradient(logits.detach(), drawn), logits.grad)


def test_the_moving_average_by_hand():
    baseline = Baseline()
    assert [round(baseline.advantage(r), 6) for r in (1.0, 1.0, -1.0)] == [1.0, 0.9, -1.19]


def test_without_a_rate_maskpro_is_wanda(tiny_llama):
    before = {name: tiny_llama.get_submodule(name).weight.detach().clone() for name in NAMES}
    norms = input_norms(tiny_llama, NAMES, BATCHES)
    maskpro_(tiny_llama, NAMES, Pattern("2:4"), BATCHES, steps=2, rate=0.0)
    for name, weight in before.items():
        want = weight * nm_mask(weight, "2:4", norms[name])
        assert torch.equal(tiny_llama.get_submodule(name).weight, want)


def test_maskpro_learns_a_mask_that_is_better(tiny_llama):
    """One group whose second draw costs much: its logits move towards what costs less, at a rate that shows it in 60 steps."""
    from amber_ext.evaluation.comparators import maskpro

    logits = {"layer": torch.tensor([[10.0, 10.0, 9.0, 9.0]])}
    generator, baseline = torch.Generator().manual_seed(0), maskpro.Baseline()
    for _ in range(60):
        drawn = draw(logits["layer"], 2, generator)
        loss = float(sum([4.0, 3.0, 0.0, 0.0][place] for place in drawn[0].tolist()))
        logits["layer"] -= 0.3 * baseline.advantage(loss) * log_probability_gradient(logits["layer"], drawn)
    assert set(logits["layer"][0].topk(2).indices.tolist()) == {2, 3}


# ---- LBC


def test_combinations_and_schedule_by_hand():
    held = members(Pattern("2:4"))
    assert held.tolist() == [
        [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1], [0, 0, 1, 1],
    ]  # fmt: skip
    # 5 (1 - t/4)^3: 2.11, 0.63, 0.08, 0.
    assert [left_after(step, 4, 6) for step in (1, 2, 3, 4)] == [3, 2, 1, 1]
    assert [left_after(step, 1, 70) for step in (1,)] == [1]
    with pytest.raises(
        ValueError, match="patterns: '8:16' has 12,870 combinations a group; weight_lbc allows 70"
    ):
        check_pattern(Pattern("8:16"))


def test_an_update_by_hand():
    """Gradients 1, -2, 0, 0.5 at the four masks: combinations fall by their sums; the three best are left."""
    held = members(Pattern("2:4"))
    scores = updated_scores(torch.zeros(1, 6), torch.tensor([[1.0, -2.0, 0.0, 0.5]]), held)
    assert scores[0].tolist() == [1.0, -1.0, -1.5, 2.0, 1.5, -0.5]
    alive = best(scores, torch.ones(1, 6, dtype=torch.bool), 3)
    assert alive[0].tolist() == [True, False, False, True, True, False]
    assert mask_of(alive, held)[0].tolist() == [True, True, True, True]
    alive = best(scores + torch.tensor([9.0, 9.0, 0, 0, 0, 0]), alive, 1)
    assert alive[0].tolist() == [True, False, False, False, False, False]  # the second is gone and stays so
    assert mask_of(alive, held)[0].tolist() == [True, True, False, False]


def test_lbc_of_one_step_is_first_order(tiny_llama):
    """All combinations but one go at once: the two weights of four whose gradient times weight is least."""
    layer = tiny_llama.get_submodule(NAMES[0])
    before = layer.weight.detach().clone()
    tiny_llama(BATCHES[0], labels=BATCHES[0]).loss.backward()
    change = layer.weight.grad * before
    tiny_llama.zero_grad(set_to_none=True)
    wanted = {name: p.requires_grad for name, p in tiny_llama.named_parameters()}
    lbc_(tiny_llama, NAMES[:1], Pattern("2:4"), BATCHES, steps=1)
    kept = change.view(-1, 4).argsort(-1)[:, :2]
    mask = torch.zeros(before.numel() // 4, 4).scatter(1, kept, 1.0).view(before.shape)
    differs = (layer.weight != before * mask).float().mean()
    assert differs < 1e-3  # sums in another order
    assert {name: p.requires_grad for name, p in tiny_llama.named_parameters()} == wanted
    assert all(p.grad is None for p in tiny_llama.parameters())


@pytest.mark.parametrize("learn", [maskpro_, lbc_])
@pytest.mark.parametrize("pattern", ["2:4", "4:8"])
def test_two_of_four_are_left(tiny_llama, learn, pattern):
    before = {name: tensor.clone() for name, tensor in tiny_llama.state_dict().items()}
    learn(tiny_llama, NAMES, Pattern(pattern), BATCHES, steps=3)
    for name, tensor in tiny_llama.state_dict().items():
        if name.removesuffix(".weight") in NAMES:
            m = Pattern(pattern).m
            kept = tensor.reshape(-1, m) != 0
            assert kept.sum(-1).eq(m // 2).all()
            assert torch.equal(tensor, before[name] * kept.view(tensor.shape))
        else:
            assert torch.equal(tensor, before[name])
    with pytest.raises(ValueError, match="batches: no sequence has the 2 tokens"):
        learn(tiny_llama, NAMES, Pattern(pattern), [BATCHES[0][:, :1]])
