"""Layers and models on a GPU: copies of weights, graph capture, whole models."""

import pytest
import torch
import torch.nn.functional as F
from helpers_gpu import WINDOWED, needs_gpu

import amber_ext
from amber_ext import AmberConfig, AmberLinear, sparsify_

pytestmark = needs_gpu


@pytest.mark.parametrize("pattern", WINDOWED)
def test_layers_keep_copies_on_the_gpu(pattern):
    dense = torch.nn.Linear(512, 256, dtype=torch.bfloat16)
    layer = AmberLinear.from_linear(dense, pattern, backend="cutlass")
    assert layer.wide_weight is None
    layer.cuda()
    assert layer.wide_weight.untyped_storage().data_ptr() == layer.weight.untyped_storage().data_ptr()
    x = torch.randn(70, 512, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        want = amber_ext.linear(
            x,
            layer.weight.contiguous(),
            layer.bias,
            pattern=pattern,
            scale=layer.channel_scale,
            backend="cuda",
        )
        torch.testing.assert_close(layer(x), want)
        with amber_ext.decode():
            torch.testing.assert_close(layer(x), F.linear(x, layer.weight.contiguous(), layer.bias))
    layer.cpu()
    assert layer.wide_weight is None


@pytest.mark.parametrize("backend", ["cuda", "cutlass"])
def test_graph_replay_with_new_inputs_on_a_side_stream(backend):
    x = torch.randn(130, 512, device="cuda", dtype=torch.bfloat16)
    layer = AmberLinear.from_linear(torch.nn.Linear(512, 256), "2:4", backend=backend).cuda().bfloat16()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(stream):
        layer(x)  # kernels load lazily
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            y = layer(x)
        x.copy_(torch.randn_like(x))
        graph.replay()
        assert torch.equal(y, layer(x))
    torch.cuda.synchronize()


@pytest.mark.parametrize("backend", ["cuda", "cutlass"])
def test_w8a8_graph_replay_with_new_inputs(backend):
    x = torch.randn(130, 512, device="cuda", dtype=torch.bfloat16)
    factor = torch.rand(512) + 0.5
    linear = torch.nn.Linear(512, 256)
    layer = amber_ext.QuantizedLinear.from_linear(linear, factor, pattern="2:4", backend=backend)
    layer = layer.cuda().bfloat16()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(stream):
        layer(x)  # kernels load lazily
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            y = layer(x)
        x.copy_(torch.randn_like(x))
        graph.replay()
        assert torch.equal(y, layer(x))
    torch.cuda.synchronize()


def test_a_pruned_model_on_the_gpu(tiny_llama):
    tokens = torch.randint(3, 97, (2, 40), device="cuda")
    model = tiny_llama.cuda()
    with torch.inference_mode():
        sparsify_(model, AmberConfig(backend="reference"))
        want = model(tokens).logits
        sparsify_(model, AmberConfig(backend="auto"))
        assert torch.allclose(model(tokens).logits, want, atol=1e-4)


def test_a_quantised_model_on_the_gpu(tiny_llama):
    tokens = torch.randint(3, 97, (2, 40))
    amber_ext.quantize_(tiny_llama, amber_ext.OutstandingSparseConfig(), [tokens])
    with torch.inference_mode():
        want = tiny_llama(tokens).logits
        got = tiny_llama.cuda()(tokens.cuda()).logits.cpu()
    # Attention rounds differently, which may move a value across a rounding limit.
    assert (got - want).norm() < 0.02 * want.norm()
