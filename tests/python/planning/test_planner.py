"""The planner: frontier against brute force, losses against measured ones, plans that keep their promises."""

import itertools
import random

import pytest
import torch
import torch.nn.functional as F

from amber_ext import AmberConfig, Pattern, channel_scale, nm_prune, plan, plan_for_cost, sparsify_
from amber_ext.layers.sites import decide, find_linears
from amber_ext.ops.choice.measured import Entry
from amber_ext.ops.pattern import UNPRUNED
from amber_ext.ops.sparse_gemms import SparseGemm
from amber_ext.perplexity import mean_loss
from amber_ext.planning.cost_model import bound, relative_cost
from amber_ext.planning.frontier import frontier
from amber_ext.planning.loss_model import predicted_losses

BATCHES = [torch.randint(3, 97, (2, 64), generator=torch.Generator().manual_seed(i)) for i in range(4)]


@pytest.mark.parametrize("seed", range(20))
def test_no_combination_beats_the_frontier(seed):
    rng = random.Random(seed)
    options = {
        name: {None: (rng.randint(5, 9), 0.0)}
        | {i: (rng.randint(1, 9), rng.choice([rng.random(), 0.25])) for i in range(rng.randint(0, 4))}
        for name in "abcd"
    }
    every = [
        (sum(o[c][0] for o, c in zip(options.values(), choice, strict=True)),
         sum(o[c][1] for o, c in zip(options.values(), choice, strict=True)))
        for choice in itertools.product(*options.values())
    ]  # fmt: skip
    chosen = {name: min(o, key=lambda c: (o[c][1], o[c][0])) for name, o in options.items()}
    steps = frontier(options)
    assert [s.added_loss / s.saved for s in steps] == sorted(s.added_loss / s.saved for s in steps)
    for step in [None, *steps]:
        if step is not None:
            chosen[step.name] = step.choice
        cost = sum(options[name][c][0] for name, c in chosen.items())
        loss = sum(options[name][c][1] for name, c in chosen.items())
        assert min(other for spent, other in every if spent <= cost) == pytest.approx(loss)


def test_what_loses_nothing_is_a_step_too():
    """The frontier starts at the dearest choice: a plan that stays there must know that it may save for free."""
    (free, paid) = frontier({"a": {None: (4, 0.0), "half": (2, 0.0), "quarter": (1, 0.5)}})
    assert (free.choice, free.saved, free.added_loss) == ("half", 2, 0.0)
    assert (paid.choice, paid.saved, paid.added_loss) == ("quarter", 1, 0.5)


def test_predicted_losses_are_near_measured_ones(tiny_llama):
    """Against the KL divergence of the predictions when one projection is pruned, on a model with opinions."""
    with torch.no_grad():
        tiny_llama.lm_head.weight.mul_(20)
    sites = find_linears(tiny_llama)
    patterns = [Pattern("2:4"), Pattern("12:16w")]
    losses = predicted_losses(tiny_llama, sites, BATCHES, patterns, AmberConfig())
    ratios = {pattern: [] for pattern in patterns}
    with torch.inference_mode():
        dense = [F.log_softmax(tiny_llama(b).logits.double(), -1) for b in BATCHES]
        for site, pattern in itertools.product(sites, patterns):
            module = tiny_llama.get_submodule(site.name)
            scale = channel_scale(module.weight, "robust_norm")
            handle = module.register_forward_hook(
                lambda m, args, out, p=pattern, s=scale: F.linear(nm_prune(args[0], p, s), m.weight)
            )
            pruned = [F.log_softmax(tiny_llama(b).logits.double(), -1) for b in BATCHES]
            handle.remove()
            kl = sum((d.exp() * (d - p)).sum() for d, p in zip(dense, pruned, strict=True)) / 512
            ratios[pattern].append(losses[site.name, pattern] / float(kl))
    for pattern, values in ratios.items():
        values = torch.tensor(values)
        assert 0.7 < values.median() < 1.3, pattern
        assert ((values > 1 / 3) & (values < 3)).float().mean() > 0.95, (pattern, values)


def test_losses_leave_the_model_as_it_was(tiny_llama):
    tiny_llama.lm_head.weight.requires_grad_(False)
    sparsify_(tiny_llama, AmberConfig())
    before = {name: p.requires_grad for name, p in tiny_llama.named_parameters()}
    hooks = {n: len(m._forward_hooks) for n, m in tiny_llama.named_modules()}
    sites = find_linears(tiny_llama)
    first = predicted_losses(tiny_llama, sites, BATCHES[:1], [Pattern("2:4")], AmberConfig())
    assert first == predicted_losses(tiny_llama, sites, BATCHES[:1], [Pattern("2:4")], AmberConfig())
    assert {name: p.requires_grad for name, p in tiny_llama.named_parameters()} == before
    assert all(p.grad is None for p in tiny_llama.parameters())
    assert {n: len(m._forward_hooks) for n, m in tiny_llama.named_modules()} == hooks
    with pytest.raises(ValueError, match="batches: it is empty"):
        predicted_losses(tiny_llama, sites, [], [Pattern("2:4")], AmberConfig())


@pytest.mark.parametrize("cost", [0.52, 0.6, 0.75, 0.9, 0.99])
def test_a_plan_meets_its_cost_and_is_the_best_measured(tiny_llama, cost):
    found = plan_for_cost(tiny_llama, BATCHES, cost)
    report = sparsify_(tiny_llama, found.config)
    total = sum(row.macs for row in report.rows)
    spent = sum(row.macs * (bound(Pattern(row.pattern)) if row.sparse else 1) for row in report.rows) / total
    assert spent == pytest.approx(found.cost) and spent <= cost + 1e-12
    assert found.predicted_loss > 0
    assert mean_loss(tiny_llama, BATCHES) == pytest.approx(min(found.measured.values()))
    costs = [point.cost for point in found.frontier]
    assert costs == sorted(costs, reverse=True) and costs[0] == 1 and costs[-1] == pytest.approx(0.5)
    assert AmberConfig.from_dict(found.config.to_dict()) == found.config


def test_a_plan_mixes_patterns_where_that_pays(tiny_llama):
    config = plan(tiny_llama, BATCHES, cost=0.7, patterns=["2:4", "12:16w"])
    rows = [decide(site, config) for site in find_linears(tiny_llama)]
    assert {str(row.pattern) for row in rows} >= {"2:4", "12:16w"}
    only = plan(tiny_llama, BATCHES, AmberConfig(targets=("down_proj",)), cost=0.9, patterns=["2:4"])
    assert only.targets == ("down_proj",)


def test_costs_on_a_gpu_are_times(tiny_llama, fake_gpu):
    assert [bound(Pattern(p)) for p in ("2:4", "10:16w", "12:16w", "4:8", "8:16", "1:2", "1:1", "6:8", "5:7")] == [
        0.5, 0.625, 0.75, 0.75, 0.75, 1.0, 1.0, 0.75, 1.0,
    ]  # fmt: skip
    site = next(s for s in find_linears(tiny_llama) if s.projection == "gate_proj")
    n, k = site.out_features, site.in_features
    gemm = SparseGemm("sm90", 90, (90,), "16-bit", "bfloat16", (128, 128, 128), 16, 16, None, 8, False)
    won = {"sm90": 1.0, "masked_dense": 2.0, "dense": 1.6}
    lost = {"sm90": 3.0, "masked_dense": 2.0, "dense": 1.6}
    entries = [Entry(n, k, pattern, "bfloat16", {8192: ms}) for pattern, ms in (("2:4", won), ("8:16", lost))]
    fake_gpu("H100", 90, [gemm], entries)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert relative_cost(site, Pattern("2:4"), gpu, torch.bfloat16) == pytest.approx(1 / 1.6)
    assert relative_cost(site, Pattern("8:16"), gpu, torch.bfloat16) == pytest.approx(2 / 1.6)
    assert (
        relative_cost(site, Pattern("12:16w"), gpu, torch.bfloat16) > 1
    )  # as predicted for a layer this small
    assert relative_cost(site, UNPRUNED, gpu, torch.bfloat16) == 1
    assert relative_cost(site, Pattern("2:4"), cpu, torch.bfloat16) == 0.5


@pytest.mark.parametrize("m", [4, 6, 8, 10])
def test_sliding_windows_hold_what_the_bound_says(m):
    """Every set of m - 2 of m columns finds a slot for each column in m/2 - 1 windows of four columns, two slots each."""
    windows = [set(range(begin, begin + 4)) for begin in range(0, m - 2, 2)]
    for dropped in itertools.combinations(range(m), 2):
        left = [column for column in range(m) if column not in dropped]
        for window in windows:  # from the left: what no later window holds is taken first
            left = [c for c in left if c not in sorted(window & set(left))[:2]]
        assert not left
    assert bound(Pattern(f"{m - 2}:{m}")) == pytest.approx(4 * len(windows) / m / 2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "coverage, skip, cost: exactly one"),
        ({"cost": 0.8, "skip": 1}, "coverage, skip, cost: exactly one"),
        ({"cost": 1.0}, r"cost: 1.0 is not allowed; it must be in \(0, 1\)"),
        ({"cost": 0.49}, "cost: 0.49 cannot be reached with these targets and patterns; the least is 0.5000"),
        ({"cost": 0.8, "patterns": []}, "patterns: it is empty"),
        ({"cost": 0.8, "patterns": ["3:9"]}, "none of these projections can be pruned"),
    ],
)
def test_bad_plans(tiny_llama, arguments, message):
    with pytest.raises(ValueError, match=message):
        plan(tiny_llama, BATCHES[:1], **arguments)


def test_unknown_targets_are_named(tiny_llama):
    with pytest.raises(ValueError, match="targets: 'qkv_proj' is not in this model; it has: down_proj"):
        plan(tiny_llama, BATCHES[:1], AmberConfig(targets=("q_proj", "qkv_proj")), cost=0.9)


def test_fused_experts_stay_dense(tiny_qwen3_moe):
    found = plan_for_cost(tiny_qwen3_moe, BATCHES[:1], 0.95, patterns=["2:4"])
    rows = sparsify_(tiny_qwen3_moe, found.config).rows
    assert any(row.sparse for row in rows)
    assert not any(row.sparse for row in rows if ".experts." in row.name)
