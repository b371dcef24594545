"""`tune` and plans on a GPU."""

import pytest
import torch
from helpers_gpu import needs_gpu

import amber_ext
from amber_ext import AmberLinear, explain
from amber_ext.ops.choice.plan import Plan
from amber_ext.ops.choice.products import forget_plans
from amber_ext.ops.sparse_gemms import DENSE, MASKED_DENSE

pytestmark = needs_gpu


def make_layer(pattern="2:4", backend="auto"):
    dense = torch.nn.Linear(1024, 2048, device="cuda", dtype=torch.bfloat16)
    return AmberLinear.from_linear(dense, pattern, "magnitude", backend=backend)


def test_the_op_picks_by_the_number_of_tokens():
    """Under eager, a compiled graph for many lengths, and a CUDA graph."""
    layer = make_layer()
    (cutlass,) = make_layer(backend="cutlass").plans.values()
    plan = Plan("cuda", "", (DENSE, MASKED_DENSE, cutlass.kernels[0]), (65, 129))
    layer.plans = dict.fromkeys(layer.plans, plan)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for tokens in (33, 65, 128, 129, 1000):
        x = torch.randn(tokens, 1024, device="cuda", dtype=torch.bfloat16)
        kernel = plan.kernel(tokens)
        want = torch.ops.amber.linear(x, layer.weight, layer.bias, None, "2:4", "none", [kernel], [])
        with torch.no_grad():
            assert torch.equal(layer(x), want) and torch.equal(compiled(x), want)
            assert explain(layer, x).kernel == kernel
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                y = layer(x)
        graph.replay()
        assert torch.equal(y, want)


@pytest.mark.parametrize("dtype", ["int8", "e4m3"])
def test_8_bit_kernels_are_picked_too(dtype):
    if dtype == "e4m3" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("e4m3 products need compute capability 8.9 or newer")
    x = torch.randn(200, 1024, device="cuda", dtype=torch.bfloat16)
    weight, weight_scale = amber_ext.quantize_weight(torch.randn(512, 1024, device="cuda"), dtype)
    for kernel, pattern in ((MASKED_DENSE, "2:4"), (DENSE, "1:1")):
        arguments = (x, weight, weight_scale, None, None, None)
        y = torch.ops.amber.linear_w8a8(*arguments, "2:4", "none", [kernel], [])
        want = amber_ext.linear_w8a8(x, weight, weight_scale, pattern=pattern, backend="cuda")
        assert torch.equal(y, want)


@pytest.mark.parametrize("pattern", ["2:4", "10:16w"])
def test_tune_measures_and_layers_follow(pattern, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget_plans()
    layer = make_layer(pattern)
    report = amber_ext.tune(torch.nn.ModuleList([layer]), [64, 4096], budget_s=30)
    (entry,) = report.entries
    assert report.path.is_file() and entry.refused == {} and set(entry.ms) == {64, 4096}
    assert {MASKED_DENSE, DENSE} < set(entry.ms[64])
    x = torch.randn(4096, 1024, device="cuda", dtype=torch.bfloat16)
    decision = explain(layer, x)
    assert decision.source == "measured" and decision.ms <= 1.06 * min(
        time for name, time in entry.ms[4096].items() if name != DENSE
    )
    monkeypatch.undo()
    forget_plans()
