"""Fused MLPs: the same logits, names and tensors as separate ones, in every phase, and a way back."""

import copy
import io

import pytest
import torch
import torch._dynamo
from helpers import tiny_llama_config
from torch._dynamo.testing import CompileCounterWithBackend

from amber_ext import (
    AmberConfig,
    AmberLinear,
    OutstandingSparseConfig,
    decode,
    densify_,
    prune_quantized_,
    quantize_,
    sparsify_,
)
from amber_ext.layers.fused import mlp
from amber_ext.layers.fused.mlp import AmberMLP

TOKENS = torch.randint(3, 97, (2, 37), generator=torch.Generator().manual_seed(1))

LAYERS = 2


def model_of(family, dtype=torch.float32, **fields):
    import transformers

    fields = {"num_hidden_layers": LAYERS, **fields}
    config = getattr(transformers, f"{family}Config")(**tiny_llama_config(**fields).to_diff_dict())
    torch.manual_seed(0)
    return getattr(transformers, f"{family}ForCausalLM")(config).to(dtype).eval()


def llama(dtype=torch.float32, **fields):
    return model_of("Llama", dtype, **fields)


def prune(model, fuse, pattern="2:4", **fields):
    sparsify_(model, AmberConfig(pattern=pattern, fuse=fuse, **fields))
    return model


def quantize(model, fuse, pattern="2:4"):
    quantize_(model, OutstandingSparseConfig(pattern=pattern, fuse=fuse), [TOKENS])
    return model


def logits(model):
    with torch.no_grad():
        return model(TOKENS, use_cache=False).logits


def mlps(model):
    return [layer.mlp for layer in model.model.layers]


def is_fused(model):
    (fused,) = {isinstance(block, AmberMLP) for block in mlps(model)}
    return fused


def count_fused(monkeypatch):
    """A list that grows by the first dimension of gate for each fused call."""
    calls, original = [], mlp.silu_mul_linear
    monkeypatch.setattr(
        mlp, "silu_mul_linear", lambda gate, up, **more: calls.append(len(gate)) or original(gate, up, **more)
    )
    return calls


@pytest.mark.parametrize("change", [prune, quantize])
@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_logits_and_names_are_those_of_separate_mlps(family, change):
    cases = [(torch.bfloat16, "2:4")]
    if family == "Llama":
        cases += [(torch.float32, "10:16w"), (torch.float16, "8:16")]
    for dtype, pattern in cases:
        model = model_of(family, dtype)
        separate, fused = (change(copy.deepcopy(model), fuse, pattern) for fuse in (False, True))
        assert is_fused(fused) and not is_fused(separate)
        assert torch.equal(logits(fused), logits(separate))
        want, got = separate.state_dict(), fused.state_dict()
        assert list(got) == list(want) and all(torch.equal(got[name], want[name]) for name in want)
        assert dict(fused.named_modules()).keys() == dict(separate.named_modules()).keys()


def test_on_a_cpu_fusing_is_asked_for():
    assert not is_fused(prune(llama(), None)) and not is_fused(quantize(llama(), None))


def test_biases_and_other_activations():
    model = llama(mlp_bias=True)
    for block in mlps(model):
        torch.nn.init.normal_(block.down_proj.bias)
    fused = prune(copy.deepcopy(model), True)
    assert is_fused(fused) and torch.equal(logits(fused), logits(prune(model, False)))
    assert not is_fused(prune(llama(hidden_act="gelu"), True))
    assert is_fused(prune(llama(hidden_act="swish"), True))
    only_q = prune(llama(), True, targets=("q_proj",))
    assert not is_fused(only_q)  # nothing of the MLP is pruned
    with pytest.raises(ValueError, match="fuse: 1 is not allowed; it must be True, False or None"):
        AmberConfig(fuse=1)


def test_densify_and_another_configuration_take_it_back():
    model = llama()
    want, classes = logits(model), [type(m) for m in model.modules()]
    prune(model, True)
    prune(model, False)
    assert not is_fused(model)
    prune(prune(model, True), True)
    assert is_fused(model) and type(mlps(model)[0]).__mro__.count(AmberMLP) == 1
    densify_(model)
    assert torch.equal(logits(model), want) and [type(m) for m in model.modules()] == classes


def test_an_8_bit_model_is_pruned_and_fused():
    models = [quantize(llama(), False) for _ in range(2)]
    for model, fuse in zip(models, (False, True), strict=True):
        prune_quantized_(model, AmberConfig(pattern="4:8", rescale="variance", fuse=fuse))
    assert [is_fused(model) for model in models] == [False, True]
    assert torch.equal(logits(models[0]), logits(models[1]))


def test_decode_runs_as_before(monkeypatch):
    model = prune(llama(), True)
    calls = count_fused(monkeypatch)
    with decode():
        dense = logits(model)
    assert not calls
    with decode():
        assert torch.equal(dense, logits(prune(llama(), False)))
    logits(model)
    assert len(calls) == LAYERS


@pytest.mark.parametrize(
    "change, options",
    [
        (prune, {}),
        (prune, {"use_cache": False}),
        (prune, {"prompt_lookup_num_tokens": 3}),
        (quantize, {"prompt_lookup_num_tokens": 3}),
    ],
)
def test_generation_is_that_of_separate_mlps(change, options, monkeypatch):
    prompt = torch.tensor([[5, 6, 7, 8, 5, 6, 7, 8, 5, 6]])
    separate, fused = change(llama(), False), change(llama(), True)
    calls = count_fused(monkeypatch)
    options = {**options, "max_new_tokens": 5, "do_sample": False}
    assert torch.equal(fused.generate(prompt, **options), separate.generate(prompt, **options))
    if "prompt_lookup_num_tokens" in options:
        assert (
            set(calls) <= {1, 10} and 10 in calls
        )  # a batch of 1, or the prompt's rows without those of drafts


def test_hooks_on_the_down_projection_see_its_input():
    model, seen = prune(llama(), True), []
    want = logits(model)
    for block in mlps(model):
        block.down_proj.register_forward_hook(lambda module, args, output: seen.append(args[0].shape))
    assert torch.equal(logits(model), want)
    assert seen == [(2, 37, 160)] * LAYERS
    # Calibration looks by hooks, too.
    assert torch.equal(logits(quantize(prune(llama(), True), False)), logits(quantize(llama(), False)))


def test_other_layers_in_place_of_the_down_projection():
    model = prune(llama(), True)
    for block in mlps(model):
        block.down_proj = block.down_proj.to_linear()
    separate = prune(llama(), False, targets=("q_proj", "gate_proj"))
    assert torch.equal(logits(model), logits(separate))


def test_changed_weights_are_noticed():
    models = [prune(llama(), fuse) for fuse in (False, True)]
    for model in models:
        logits(model)
        with torch.no_grad():
            for block in mlps(model):
                block.down_proj.weight.mul_(torch.linspace(0.1, 3.0, 160))
    assert torch.equal(logits(models[0]), logits(models[1]))


def test_copies_and_pickles():
    model = prune(llama(), True)
    want = logits(model)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        assert is_fused(other) and torch.equal(logits(other), want)
        densify_(other)
        assert not is_fused(other)


def test_a_block_that_stands_twice_stays_one():
    model = llama()
    model.model.layers[1].mlp = model.model.layers[0].mlp
    prune(model, True)
    assert model.model.layers[1].mlp is model.model.layers[0].mlp and is_fused(model)
    assert isinstance(model.model.layers[1].mlp.down_proj, AmberLinear)


def test_saved_models_are_fused_again(tmp_path):
    from transformers import AutoModelForCausalLM

    from amber_ext import load_quantized, save_quantized
    from amber_ext.integrations.transformers import AmberQuantConfig

    model = llama()
    model.save_pretrained(tmp_path / "dense")
    config = AmberQuantConfig(AmberConfig(fuse=True))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", quantization_config=config).eval()
    assert is_fused(loaded) and torch.equal(logits(loaded), logits(prune(llama(), False)))
    loaded.save_pretrained(tmp_path / "pruned")
    assert is_fused(AutoModelForCausalLM.from_pretrained(tmp_path / "pruned"))

    quantized = quantize(llama(), True)
    save_quantized(quantized, tmp_path / "int8")
    again = load_quantized(tmp_path / "int8")
    assert is_fused(again) and torch.equal(logits(again), logits(quantized))


@pytest.mark.slow
@pytest.mark.parametrize("change", [prune, quantize])
def test_one_graph_for_many_lengths(change):
    torch._dynamo.reset()
    model = change(llama(), True)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for length in (6, 11, 40, 73):
            tokens = TOKENS.flatten()[:length][None]
            want = model(tokens, use_cache=False).logits
            assert torch.allclose(compiled(tokens, use_cache=False).logits, want, atol=1e-4)
    graphs = [g for g in counter.graphs if any(node.op == "call_function" for node in g.graph.nodes)]
    assert len(graphs) == 1
    ops = [node.target for node in graphs[0].graph.nodes]
    assert ops.count(torch.ops.amber.silu_mul_prune) == LAYERS
    assert ops.count(torch.ops.amber.sparse_linear_compressed) == LAYERS
    assert torch.nn.functional.silu not in ops
