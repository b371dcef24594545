"""Plans: what a layer holds, the op picks and `explain` says are one; and compiled graphs are the same for every length."""

import copy
import pickle
from bisect import bisect_right

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from helpers_tuning import GEMMS, fake_gpu_switch, fake_layer
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

from amber_ext import AmberConfig, AmberLinear, QuantizedLinear, explain, linear, nm_prune, prefill, sparsify_
from amber_ext.ops.choice import products
from amber_ext.ops.choice.measured import Entry
from amber_ext.ops.choice.plan import Plan, steps

NAMES = ("masked_dense", "dense")


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@st.composite
def plans(draw, names=NAMES):
    thresholds = sorted(draw(st.sets(st.integers(1, 40), max_size=4)))
    kernels = draw(
        st.lists(st.sampled_from(names), min_size=len(thresholds) + 1, max_size=len(thresholds) + 1)
    )
    return Plan("cpu", "a test", tuple(kernels), tuple(thresholds))


@settings(max_examples=60, deadline=None)
@given(plan=plans(), tokens=st.integers(1, 45), leading=st.sampled_from([(), (1,)]))
def test_the_op_picks_as_the_plan_says(plan, tokens, leading):
    """The compiled op, 16 and 8 bits, on the CPU."""
    x, weight = torch.randn(*leading, tokens, 16), torch.randn(8, 16)
    pruned = plan.kernel(tokens) == "masked_dense"
    y = linear(x, weight, pattern="1:4", plan=plan)
    assert torch.equal(y, F.linear(nm_prune(x, "1:4") if pruned else x, weight))

    eight = torch.randint(-127, 128, (8, 16), dtype=torch.int8)
    arguments = (x, eight, torch.rand(8), None, None, None)
    y = torch.ops.amber.linear_w8a8(*arguments, "1:4", "none", list(plan.kernels), list(plan.thresholds))
    want = torch.ops.amber.masked_dense_w8a8(*arguments, "1:4" if pruned else "1:1", "none")
    assert torch.equal(y, want)


def test_the_op_reads_the_weight_without_its_copies():
    from amber_ext import widen_weight

    x, weight = torch.randn(5, 32), torch.randn(8, 32)
    wide = widen_weight(weight, "8:16")
    for kernels in (["masked_dense"], ["dense"]):
        y = torch.ops.amber.linear(x, wide, None, None, "8:16", "none", kernels, [])
        assert torch.equal(y, torch.ops.amber.linear(x, weight, None, None, "8:16", "none", kernels, []))


@pytest.mark.parametrize(
    "kernels, thresholds, message",
    [
        (["dense"], [4], "kernels: 1 do not match 1 thresholds; allowed: one kernel more than thresholds"),
        ([], [], "kernels: 0 do not match 0 thresholds"),
        (["dense"] * 3, [4, 2], "thresholds: they do not ascend; they must"),
    ],
)
def test_the_op_checks_its_plan(kernels, thresholds, message):
    with pytest.raises(RuntimeError, match=message):
        torch.ops.amber.linear(
            torch.ones(3, 4), torch.ones(2, 4), None, None, "2:4", "none", kernels, thresholds
        )


TIMES = st.fixed_dictionaries({name: st.floats(0.01, 100) for name in (*NAMES, "sm90_a", "sm90_b")})


@settings(max_examples=40, deadline=None)
@given(
    ms=st.dictionaries(st.integers(1, 20000), TIMES, max_size=6),
    tokens=st.integers(1, 40000),
    unpruned=st.booleans(),
    gpu=st.sampled_from([("A100", 80), ("H100", 90), ("H20", 90), ("RTX 5090", 120), ("GB10", 121)]),
)
def test_explain_says_what_runs(fake_gpu_for_all, ms, tokens, unpruned, gpu):
    """Whatever was measured, on every GPU: the plan's kernel, in its op's words, is that of `explain`."""
    fake_gpu_for_all(*gpu, GEMMS, [Entry(1024, 2048, "2:4", "bfloat16", ms)] if ms else None)
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer = fake_layer(allow_unpruned=unpruned)
        x = torch.empty(tokens, 2048, dtype=torch.bfloat16, device="cuda")
        decision = explain(layer, x)
        arguments = layer.call_arguments(x)
    plan = arguments["plan"]
    assert plan.kernels[bisect_right(plan.thresholds, tokens)] == decision.kernel == plan.kernel(tokens)
    assert decision.source == ("measured" if ms and min(ms) <= tokens <= max(ms) else "predicted")
    assert unpruned or "dense" not in plan.kernels
    assert decision.ms > 0 and decision.dense_ms > 0 and "\n" not in decision.reason
    assert list(plan.thresholds) == sorted(set(plan.thresholds))


@pytest.fixture(scope="module")
def fake_gpu_for_all(tmp_path_factory):
    """`fake_gpu`, for the examples of a property test."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield from fake_gpu_switch(monkeypatch, tmp_path_factory.mktemp("gpu"))


def test_steps_find_where_the_kernel_changes():
    kernels, thresholds = steps(lambda tokens, _: "abc"[(tokens >= 7) + (tokens >= 90)], "a", [1, 2, 8, 1000])
    assert (kernels, thresholds) == (("a", "b", "c"), (7, 90))


def compiled_calls(function, lengths, make):
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(function, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        outputs = [compiled(make(length)) for length in lengths]
    ops = [n for g in counter.graphs for n in g.graph.nodes if str(n.target).startswith("amber.linear")]
    return counter.frame_count, ops, outputs


LENGTHS = (5, 17, 300, 1000, 8192)


@pytest.mark.parametrize("kind", ["layer", "quantized", "function"])
def test_one_compile_for_many_lengths_on_a_gpu(fake_gpu, kind):
    fake_gpu("H100", 90, GEMMS)
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer = fake_layer(n=14336, k=4096)
        function = layer
        if kind == "quantized":
            function = QuantizedLinear(
                4096, 14336, bias=True, bias_dtype=torch.bfloat16, smooth=True, channel_scale=True, pattern="2:4",
                device="cuda", allow_unpruned=True,
            )  # fmt: skip
            plan = Plan("cuda", "", ("dense", "sm90_a"), (64,))
            function.keep_copies()
            function.plans = dict.fromkeys(function.plans, plan)
        elif kind == "function":
            weight = layer.weight
            function = lambda x: linear(x, weight, pattern="2:4")  # noqa: E731
        plan = plan if kind == "quantized" else next(iter(layer.plans.values()))
        assert plan.is_sparse and plan.thresholds
        frames, (op,), outputs = compiled_calls(
            function, LENGTHS, lambda t: torch.empty(2, t, 4096, dtype=torch.bfloat16, device="cuda")
        )
    assert frames == 1 and [y.shape[1] for y in outputs] == list(LENGTHS)
    assert op.args[-2:] == (list(plan.kernels), list(plan.thresholds))


def test_one_compile_for_many_lengths_on_the_cpu():
    """With a plan that has thresholds, and eager's results on both sides of them."""
    layer = AmberLinear.from_linear(torch.nn.Linear(64, 32), "2:4")
    layer.plans = dict.fromkeys(layer.plans, Plan("cpu", "", ("dense", "masked_dense"), (100,)))
    torch.manual_seed(0)
    xs = {length: torch.randn(2, length, 64) for length in (5, 49, 50, 51, 300)}
    frames, _, outputs = compiled_calls(layer, xs, xs.get)
    assert frames == 1
    for (length, x), y in zip(xs.items(), outputs, strict=True):
        dense = F.linear(x, layer.weight, layer.bias)
        assert torch.equal(y, layer(x)) and torch.equal(y, dense) == (2 * length < 100)


def test_a_compiled_layer_follows_a_new_plan():
    """As `tune` makes one."""
    layer = AmberLinear.from_linear(torch.nn.Linear(64, 32), "2:4")
    compiled = torch.compile(layer, backend="eager", fullgraph=True, dynamic=True)
    x = torch.randn(9, 64)
    with torch.no_grad():
        pruned = compiled(x)
        layer.plans = dict.fromkeys(layer.plans, Plan("cpu", "", ("dense",)))
        dense = F.linear(x, layer.weight, layer.bias)
        assert torch.equal(compiled(x), dense) and not torch.equal(pruned, dense)


@pytest.mark.slow
def test_a_model_whose_layers_hold_plans_compiles_once(tiny_llama):
    sparsify_(tiny_llama, AmberConfig())
    for layer in tiny_llama.modules():
        if isinstance(layer, AmberLinear):
            layer.plans = dict.fromkeys(layer.plans, Plan("cpu", "", ("dense", "masked_dense"), (20,)))
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(tiny_llama, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad(), prefill():
        for length in (6, 11, 40, 73):
            tokens = torch.randint(3, 97, (1, length))
            got = compiled(tokens, use_cache=False).logits
            assert torch.allclose(got, tiny_llama(tokens, use_cache=False).logits, atol=1e-4)
    graphs = [g for g in counter.graphs if any("amber.linear" in str(n.target) for n in g.graph.nodes)]
    assert len(graphs) == 1


def test_a_layer_makes_its_plans_once(fake_gpu, monkeypatch):
    fake_gpu("H100", 90, GEMMS)
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer = fake_layer()
        asked = []
        x = torch.empty(300, 2048, dtype=torch.bfloat16, device="cuda")
        with monkeypatch.context() as patch:
            patch.setattr(products, "cached_plan", lambda *key: asked.append(key))
            assert layer(x).shape == (300, 1024) and not asked


def test_plans_follow_the_layer():
    layer = AmberLinear.from_linear(torch.nn.Linear(64, 32), "2:4")
    (key,) = layer.plans
    assert key[1:3] == (torch.float32, torch.float32) and layer.plans[key].kernels == ("masked_dense",)
    for other in (layer.bfloat16(), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        (key,) = other.plans
        assert key[1:3] == (torch.bfloat16, torch.bfloat16)
    assert b"masked_dense" not in pickle.dumps(layer)
    assert copy.deepcopy(layer).double().plans  # no product takes fp64; moving there and back does no harm
    assert "plans" not in layer.to_linear().__dict__
    layer.weight = torch.nn.Parameter(torch.randn(32, 64))
    layer.bias = None
    assert layer(torch.randn(3, 64)).shape == (3, 32)  # makes its own


def test_an_explicit_backend_that_cannot_run_is_left_to_the_call():
    layer = AmberLinear.from_linear(torch.nn.Linear(64, 32), "2:4", backend="cutlass")
    assert layer.plans == {}
    with pytest.raises(RuntimeError, match="'cutlass' cannot run here"):
        layer(torch.randn(3, 64))


def test_a_weight_that_is_not_aligned_runs_densely(fake_gpu):
    fake_gpu("H100", 90, GEMMS)
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer = fake_layer()
        storage = torch.empty(1024 * 2048 + 1, dtype=torch.bfloat16, device="cuda")
        layer.weight = torch.nn.Parameter(storage.as_strided((1024, 2048), (2048, 1), 1), requires_grad=False)
        decision = explain(layer, torch.empty(8192, 2048, dtype=torch.bfloat16, device="cuda"))
    assert decision.kernel == "masked_dense" and "16-byte aligned" in decision.reason
