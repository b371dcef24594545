"""torch.compile: no graph break, one compile for many lengths, eager's results."""

import asyncio
import threading

import pytest
import torch
import torch._dynamo
from torch._dynamo.testing import CompileCounterWithBackend

from amber_ext import (
    AmberConfig,
    AmberLinear,
    OutstandingSparseConfig,
    decode,
    prefill,
    quantize_,
    sparsify_,
)
from amber_ext.phase import current_phase


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("rescale", ["none", "variance"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_layer_compiles_once_for_many_lengths(backend, rescale):
    dense = torch.nn.Linear(64, 32, bias=True)
    layer = AmberLinear.from_linear(dense, "2:4", rescale=rescale, backend=backend)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for length in (5, 17, 64, 65, 1000, 3):
            x = torch.randn(2, length, 64)
            assert torch.allclose(compiled(x), layer(x), atol=1e-6)
    assert counter.frame_count == 1


def test_inductor_agrees_with_eager():
    layer = AmberLinear.from_linear(torch.nn.Linear(64, 32), "4:8")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for length in (7, 40):
            x = torch.randn(length, 64)
            assert torch.allclose(compiled(x), layer(x), atol=1e-5)


def test_phases_compile_without_a_break():
    layer = AmberLinear.from_linear(torch.nn.Linear(64, 32), "2:4")
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(layer, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for length in (4, 9):
            x = torch.randn(length, 64)
            assert torch.equal(compiled(x), layer(x))
            with decode():
                assert torch.equal(compiled(x), layer(x))
    assert counter.frame_count == 2  # one for each phase


def compiled_graphs(counter):
    """Graphs that compute something; wrappers and hooks around the model compile to empty ones."""
    return [g for g in counter.graphs if any(node.op == "call_function" for node in g.graph.nodes)]


@pytest.mark.slow
def test_whole_model_compiles_once_for_many_lengths(tiny_llama):
    sparsify_(tiny_llama, AmberConfig())
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(tiny_llama, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for length in (6, 11, 40, 73):
            tokens = torch.randint(3, 97, (1, length))
            got = compiled(tokens, use_cache=False).logits
            assert torch.allclose(got, tiny_llama(tokens, use_cache=False).logits, atol=1e-4)
    assert len(compiled_graphs(counter)) == 1
    ops = [node.target for node in compiled_graphs(counter)[0].graph.nodes]
    assert ops.count(torch.ops.amber.linear) == 12  # every pruned layer is in it


@pytest.mark.slow
def test_a_quantised_model_compiles_once_for_many_lengths(tiny_llama):
    quantize_(tiny_llama, OutstandingSparseConfig(), [torch.randint(3, 97, (2, 24))])
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(tiny_llama, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for length in (6, 11, 40):
            tokens = torch.randint(3, 97, (1, length))
            got = compiled(tokens, use_cache=False).logits
            assert torch.allclose(got, tiny_llama(tokens, use_cache=False).logits, atol=1e-3)
    assert len(compiled_graphs(counter)) == 1
    ops = [node.target for node in compiled_graphs(counter)[0].graph.nodes]
    assert ops.count(torch.ops.amber.quantize_activations) == 28


@pytest.mark.slow
@pytest.mark.parametrize("around", ["model", "caller"])
def test_a_compiled_model_prefills_sparsely_and_decodes_densely(tiny_llama, around):
    tokens = torch.randint(3, 97, (1, 9))
    sparsify_(tiny_llama, AmberConfig())

    def call(ids, cache):
        return tiny_llama(ids, past_key_values=cache, use_cache=True)

    compiled = torch.compile(
        call if around == "caller" else tiny_llama, backend="aot_eager", fullgraph=True, dynamic=True
    )

    def prefill_then_decode(function):
        from transformers import DynamicCache

        cache = DynamicCache(config=tiny_llama.config)
        first = function(tokens, cache).logits
        return first, function(tokens[:, :1], cache).logits

    with torch.no_grad():
        want = prefill_then_decode(call)
        got = prefill_then_decode(
            compiled if around == "caller" else lambda ids, cache: compiled(ids, past_key_values=cache)
        )
        assert torch.allclose(got[0], want[0], atol=1e-4) and torch.allclose(got[1], want[1], atol=1e-4)
        with prefill():
            always_sparse = prefill_then_decode(call)
        assert not torch.allclose(always_sparse[1], want[1], atol=1e-2)


@pytest.mark.slow
def test_generate_compiles_its_calls(tiny_llama, monkeypatch):
    """As transformers does on a GPU with a static cache: every call but that of a whole prompt is compiled."""
    sparsify_(tiny_llama, AmberConfig())
    prompt = torch.tensor([[5, 6, 7, 8, 5, 6, 7, 8, 5, 6]])
    options = {"max_new_tokens": 5, "do_sample": False, "cache_implementation": "static"}
    want = tiny_llama.generate(prompt, **options)
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(tiny_llama.__call__, backend=counter, fullgraph=True)
    monkeypatch.setattr(tiny_llama, "get_compiled_call", lambda config: compiled, raising=False)
    monkeypatch.setattr(tiny_llama, "_valid_auto_compile_criteria", lambda *args: True, raising=False)
    for chunked in ({}, {"prefill_chunk_size": 5}):
        for _ in range(2):
            assert torch.equal(tiny_llama.generate(prompt, **options, **chunked), want)
        sparse = {
            sum(node.target == torch.ops.amber.linear for node in graph.graph.nodes)
            for graph in counter.graphs
        }
        assert sparse == ({0, 12} if chunked else {0})
    assert len(counter.graphs) <= 5


def test_compiled_layers_follow_the_phase_of_their_thread():
    layer = AmberLinear.from_linear(torch.nn.Linear(64, 32), "2:4")
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    x = torch.randn(5, 64)
    with torch.no_grad():
        sparse = layer(x)
    seen = []

    def other_thread():
        with torch.no_grad():
            seen.append(torch.equal(compiled(x), sparse))

    with torch.no_grad(), decode():
        dense = compiled(x)
        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
        assert torch.equal(compiled(x), dense) and not torch.equal(dense, sparse)
    assert seen == [True]


def test_compiled_layers_follow_the_phase_of_their_task():
    layer = AmberLinear.from_linear(torch.nn.Linear(64, 32), "2:4")
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    x = torch.randn(5, 64)

    async def task(context, begun, other):
        with context(), torch.no_grad():
            want = layer(x)
            begun.set()
            await other.wait()  # the other task is in its phase now
            return compiled(x), want

    async def main():
        a, b = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(task(decode, a, b), task(prefill, b, a))

    for _ in range(2):
        (dense, want_dense), (sparse, want_sparse) = asyncio.run(main())
        assert torch.equal(dense, want_dense) and torch.equal(sparse, want_sparse)
        assert not torch.equal(dense, sparse)
    assert counter.frame_count == 2


def test_compiled_code_may_say_its_phase():
    layer = AmberLinear.from_linear(torch.nn.Linear(64, 32), "2:4")

    def both(x):
        with decode():
            dense = layer(x)
            with prefill():
                return dense, layer(x)

    x = torch.randn(5, 64)
    with torch.no_grad():
        for got, want in zip(torch.compile(both, backend="eager", fullgraph=True)(x), both(x), strict=True):
            assert torch.equal(got, want)
    assert current_phase() == "prefill"


def test_backward_says_why_when_compiled():
    layer = AmberLinear.from_linear(torch.nn.Linear(64, 32), "2:4")
    with pytest.raises(Exception, match="backward through an N:M pruned layer is not supported"):
        torch.compile(layer, backend="aot_eager")(torch.randn(4, 64)).sum().backward()
