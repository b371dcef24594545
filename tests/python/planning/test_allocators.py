"""Allocators beside the loss model: TEAL's rule and ActTail's map against cases by hand, and plans that meet their cost."""

import math
from types import SimpleNamespace

import pytest
import torch

from amber_ext import AmberConfig, AmberLinear, Pattern, nm_prune, plan, plan_for_cost, sparsify_
from amber_ext.layers.sites import decide, find_linears
from amber_ext.ops.pattern import UNPRUNED
from amber_ext.planning.allocators.acttail import (
    acttail_patterns,
    acttail_sparsities,
    relative_sparsities,
    rescaled,
    tail_exponent,
)
from amber_ext.planning.allocators.block_errors import BlockErrors, blocks_of
from amber_ext.planning.allocators.levels import levels_of
from amber_ext.planning.allocators.teal import Move, raise_one_at_a_time
from amber_ext.planning.cost_model import bound

BATCHES = [torch.randint(3, 97, (2, 32), generator=torch.Generator().manual_seed(i)) for i in range(2)]
PATTERNS = [Pattern(text) for text in ("2:4", "4:8", "8:16", "10:16w", "12:16w")]


def test_levels_are_the_densest_pattern_at_each_cost():
    levels = levels_of(SimpleNamespace(), PATTERNS, lambda site, pattern: bound(pattern))
    assert [(str(level.pattern), level.cost) for level in levels] == [
        ("1:1", 1.0), ("12:16w", 0.75), ("10:16w", 0.625), ("2:4", 0.5),
    ]  # fmt: skip
    # What costs more than a denser one is no step; here 2:4 is slower than dense.
    slow = levels_of(SimpleNamespace(), PATTERNS[:1], lambda site, pattern: 1.1 if pattern.m == 4 else 1.0)
    assert [level.pattern for level in slow] == [UNPRUNED]


# ---- TEAL


def test_the_greedy_rule_by_hand():
    """Two projections with errors (a share)² · weight. Steps of 0.25 of equal saving: TEAL takes the least growth."""
    weights, taken = {"a": 1.0, "b": 3.0}, []

    def moves_of(state, left):
        return [Move(name, share + 0.25, 0.125) for name, share in state.items() if share < 1]

    def error_of(state):
        return sum(weights[name] * share**2 for name, share in state.items())

    def recorded(state, left):
        taken.append(dict(state))
        return moves_of(state, left)

    found = raise_one_at_a_time({"a": 0.0, "b": 0.0}, recorded, error_of, 0.5)
    # Growth of a: 1/16, 3/16, 5/16, 7/16; of b: 3/16, 9/16. At the tie (a's second step, b's first) the first named.
    assert taken == [{"a": 0, "b": 0}, {"a": 0.25, "b": 0}, {"a": 0.5, "b": 0}, {"a": 0.5, "b": 0.25}]
    assert found == {"a": 0.75, "b": 0.25}
    with pytest.raises(ValueError, match="cost: a block can save 1, less than the 1.5 wanted of it"):
        raise_one_at_a_time({"a": 0.0, "b": 0.0}, moves_of, error_of, 1.5)


def test_a_step_that_saves_twice_may_grow_twice():
    moves = [Move("a", 1, 1.0), Move("b", 1, 2.0)]
    errors = {"a": 1.1, "b": 2.0}

    def run(errors):
        return raise_one_at_a_time(
            {"a": 0, "b": 0},
            lambda s, left: moves,
            lambda s: errors["a"] * s["a"] + errors["b"] * s["b"],
            1.0,
        )

    assert run(errors) == {"a": 0, "b": 1}
    assert run({"a": 0.9, "b": 2.0}) == {"a": 1, "b": 0}


def test_block_errors_are_those_of_the_decoder_layer(tiny_llama):
    sites = find_linears(tiny_llama)
    assert {name: len(inside) for name, inside in blocks_of(sites).items()} == {
        f"model.layers.{i}": 7 for i in range(4)
    }
    block, name = "model.layers.2", "model.layers.2.mlp.down_proj"
    errors = BlockErrors(tiny_llama, blocks_of(sites), BATCHES)
    assert errors.error(block, {}) == 0
    found = errors.error(block, {name: lambda x: nm_prune(x, "2:4")})
    # The layer's output alone: residual and attention are the dense ones, so the change is down's own.
    want = 0.0
    linear, inputs = tiny_llama.get_submodule(name), []
    handle = linear.register_forward_pre_hook(lambda m, args: inputs.append(args[0]))
    with torch.inference_mode():
        for batch in BATCHES:
            tiny_llama(batch)
    handle.remove()
    for x in inputs:
        want += float(((nm_prune(x, "2:4") - x) @ linear.weight.detach().T).double().square().sum())
    assert found == pytest.approx(want, rel=1e-4)
    assert not linear._forward_pre_hooks


def test_every_block_saves_the_same(tiny_llama):
    found = plan_for_cost(tiny_llama, BATCHES, 0.75, allocator="teal", patterns=["2:4", "12:16w"])
    saved = {}
    for site in find_linears(tiny_llama):
        decision = decide(site, found.planned)
        cost = bound(decision.pattern) if decision.sparse else 1.0
        saved[site.layer] = saved.get(site.layer, 0.0) + (1 - cost) * site.macs / 43008
    assert all(0.25 <= value < 0.25 + 0.5 * 10240 / 43008 for value in saved.values())


# ---- ActTail


def test_the_exponent_by_hand():
    """Eigenvalues 1, 4, 16, 64: the upper half over the one below it is 4 and 16."""
    want = 1 + 2 / (math.log(4) + math.log(16))
    weight = torch.zeros(4, 6)
    weight[range(4), [5, 0, 2, 3]] = torch.tensor([1.0, -2.0, 4.0, 8.0])
    assert tail_exponent(weight) == pytest.approx(want)
    assert tail_exponent(weight.T) == pytest.approx(want)
    assert tail_exponent((3 * weight).to(torch.bfloat16)) == pytest.approx(want)
    # A heavier tail has a smaller exponent.
    weight[3, 3] = 80.0
    assert tail_exponent(weight) < want
    with pytest.raises(ValueError, match="its rank is 1; at least 2 is needed"):
        tail_exponent(torch.ones(4, 6))


def test_sparsities_by_hand():
    relative = relative_sparsities({"a": 2.0, "b": 3.0, "c": 4.0}, spread=0.2)
    assert relative == pytest.approx({"a": 0.8, "b": 1.0, "c": 1.2})
    assert relative_sparsities({"a": 2.0, "b": 2.0}) == {"a": 1.0, "b": 1.0}
    sizes = {"a": 1.0, "b": 1.0, "c": 2.0}
    found = rescaled(relative, sizes, 0.5)
    assert found == pytest.approx({name: 2 / 4.2 * value for name, value in relative.items()})
    # 1.6 over 1 + 3 would make b 1.2: it gets 1, and a the rest.
    assert rescaled({"a": 1.0, "b": 3.0}, {"a": 1.0, "b": 1.0}, 0.8) == pytest.approx({"a": 0.6, "b": 1.0})
    assert rescaled({"a": 0.8, "b": 1.2}, {"a": 1.0, "b": 5.0}, 1.0) == {"a": 1.0, "b": 1.0}


def test_patterns_by_hand():
    """Relative sparsities 0.7 and 1.3; halfway from dense to 12:16w is 1/8, to 10:16w 5/16, to 2:4 7/16."""
    sites = [SimpleNamespace(name="a"), SimpleNamespace(name="b")]
    exponents = {"a": 2.0, "b": 5.0}

    def found(wanted):
        chosen = acttail_patterns(exponents, sites, PATTERNS, lambda s, p: 0.5 * bound(p), wanted)
        return {name: str(pattern) for name, pattern in chosen.items()}

    assert found(0.125) == {"b": "12:16w"}
    assert found(0.126) == {
        "a": "12:16w",
        "b": "12:16w",
    }  # at 0.125/0.7 = 0.18, before b's next at 0.3125/1.3 = 0.24
    assert found(0.26) == {"a": "12:16w", "b": "10:16w"}
    assert found(0.32) == {"a": "12:16w", "b": "2:4"}
    assert found(0.5) == {"a": "2:4", "b": "2:4"}


def test_sparsities_of_a_model_meet_the_target(tiny_llama):
    sites = find_linears(tiny_llama)
    found = acttail_sparsities(tiny_llama, sites, 0.5)
    total = sum(site.macs for site in sites)
    assert sum(found[site.name] * site.macs for site in sites) / total == pytest.approx(0.5)
    assert len(set(found.values())) > 20


# ---- plans


@pytest.mark.parametrize("allocator", ["fisher", "teal", "acttail"])
def test_a_plan_meets_its_cost(tiny_llama, allocator):
    found = plan_for_cost(tiny_llama, BATCHES, 0.7, allocator=allocator)
    for config in (found.config, found.planned):
        report = sparsify_(tiny_llama, config)
        spent = sum(row.macs * (bound(Pattern(row.pattern)) if row.sparse else 1) for row in report.rows)
        assert spent / sum(row.macs for row in report.rows) <= 0.7 + 1e-9
    assert any(isinstance(module, AmberLinear) for module in tiny_llama.modules())
    assert found.measured["planned"] >= min(found.measured.values())
    assert (found.predicted_loss is not None) == (len(found.frontier) > 0) == (allocator == "fisher")
    # A sparsified model is planned for as the dense one.
    sparsify_(tiny_llama, AmberConfig(pattern="1:16", targets=("down_proj", "up_proj")))
    again = plan_for_cost(tiny_llama, BATCHES, 0.7, allocator=allocator)
    assert again.planned == found.planned and again.measured == found.measured


def test_an_unknown_allocator_is_named(tiny_llama):
    with pytest.raises(
        ValueError, match="allocator: 'owl' is not known; allowed: 'fisher', 'teal', 'acttail'"
    ):
        plan(tiny_llama, BATCHES, AmberConfig(), cost=0.7, allocator="owl")
