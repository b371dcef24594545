"""Layers that keep copies of weights for windowed patterns. No GPU needed."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F

import amber_ext
from amber_ext import (
    AmberConfig,
    AmberLinear,
    QuantizedLinear,
    densify_,
    sparsify_,
    widen_weight,
)
from amber_ext.layers import weight_copies
from amber_ext.ops.choice import products
from amber_ext.ops.pattern import extra_windows

WINDOWED = ["4:8", "8:16", "10:16w", "12:16w"]


@pytest.fixture
def copies_wanted(monkeypatch):
    """Layers keep copies as they would on a GPU with measurements; returns a switch."""
    wanted = [True]

    def wants_copies(*key):
        # As the sparse GEMMs of 16-bit weights, which do not rescale.
        problem = products.problem_of(*key)
        takes = problem.rescale == "none" or problem.is_8bit
        return wanted[0] and bool(extra_windows(problem.pattern)) and problem.device.type == "cpu" and takes

    monkeypatch.setattr(weight_copies, "wants_copies", wants_copies)
    return wanted


def shares_storage(layer):
    return layer.weight.untyped_storage().data_ptr() == layer.wide_weight.untyped_storage().data_ptr()


def check_copies(layer, pattern):
    assert shares_storage(layer)
    assert torch.equal(layer.wide_weight, widen_weight(layer.weight.detach().contiguous(), pattern))


@pytest.mark.parametrize("text", WINDOWED)
def test_a_layer_keeps_copies_in_one_storage(copies_wanted, text):
    torch.manual_seed(0)
    dense = torch.nn.Linear(96, 8)
    x = torch.randn(5, 96)
    plain = dense.weight.detach().clone()
    want = amber_ext.linear(x, plain, dense.bias, pattern=text)
    layer = AmberLinear.from_linear(dense, text, score="magnitude")
    assert layer.weight is dense.weight
    check_copies(layer, text)
    assert layer.copies_bytes == layer.extra_bytes == layer.wide_weight.nbytes - plain.nbytes

    with torch.no_grad():
        torch.testing.assert_close(layer(x), want)
        with amber_ext.decode():
            torch.testing.assert_close(layer(x), F.linear(x, plain, dense.bias))
    state = layer.state_dict()
    assert list(state) == ["weight", "bias"]
    assert torch.equal(state["weight"], plain) and state["weight"].is_contiguous()

    other = torch.nn.Linear(96, 8)
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer.weight, other.weight)
    check_copies(layer, text)
    twin = copy.deepcopy(layer)
    check_copies(twin, text)
    assert twin.wide_weight.data_ptr() != layer.wide_weight.data_ptr()
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    check_copies(torch.load(buffer, weights_only=False), text)
    layer.to(torch.bfloat16)
    assert layer.wide_weight.dtype == torch.bfloat16
    check_copies(layer, text)

    back = layer.to_linear()
    assert back.weight is dense.weight and back.weight.is_contiguous()
    assert not hasattr(back, "wide_weight")


def test_a_layer_that_moves_away_drops_its_copies(copies_wanted):
    layer = AmberLinear.from_linear(torch.nn.Linear(96, 8), "8:16")
    copies_wanted[0] = False
    layer.to(torch.float64)
    assert layer.wide_weight is None and layer.weight.is_contiguous() and layer.copies_bytes == 0


def test_no_copies_where_nothing_reads_them():
    assert AmberLinear.from_linear(torch.nn.Linear(96, 8), "10:16w").wide_weight is None
    layer = QuantizedLinear.from_linear(torch.nn.Linear(96, 8), pattern="10:16w")
    assert layer.wide_weight is None


def test_rescaled_16_bit_layers_keep_none(copies_wanted):
    layer = AmberLinear.from_linear(torch.nn.Linear(96, 8), "8:16", rescale="variance")
    assert layer.wide_weight is None


def test_a_quantised_layer_keeps_copies(copies_wanted):
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(96, 8), torch.randn(5, 96)
    layer = QuantizedLinear.from_linear(linear, pattern="12:16w", rescale="variance")
    check_copies(layer, "12:16w")
    want = amber_ext.linear_w8a8(
        x,
        layer.state_dict()["weight"],
        layer.weight_scale,
        linear.bias,
        pattern="12:16w",
        scale=layer.channel_scale,
        rescale="variance",
    )
    with torch.no_grad():
        assert torch.equal(layer(x), want)
        check_copies(copy.deepcopy(layer), "12:16w")
        layer.half()
        assert layer.weight.dtype == torch.int8
        check_copies(layer, "12:16w")
        with amber_ext.decode():
            assert layer(x.half()).shape == (5, 8)


def test_models_report_their_copies_and_give_them_back(copies_wanted, tiny_llama):
    # SDPA's inputs and everything else stay as they are: only the weights' storages change.
    before = {name: weight.clone() for name, weight in tiny_llama.state_dict().items()}
    plain_bytes = sparsify_(tiny_llama, AmberConfig(pattern="2:4")).extra_bytes
    report = sparsify_(tiny_llama, AmberConfig(pattern="10:16w"))
    layers = [module for module in tiny_llama.modules() if isinstance(module, AmberLinear)]
    assert report.extra_bytes == plain_bytes + sum(layer.copies_bytes for layer in layers) > plain_bytes
    assert all(torch.equal(before[name], weight) for name, weight in tiny_llama.state_dict().items())
    densify_(tiny_llama)
    assert all(p.is_contiguous() for p in tiny_llama.parameters())


def test_a_failed_change_leaves_no_copies(copies_wanted, tiny_llama):
    bad = tiny_llama.model.layers[2].mlp.down_proj.weight
    with torch.no_grad():
        bad[0, 0] = float("nan")
    with pytest.raises(ValueError, match="down_proj"):
        sparsify_(tiny_llama, AmberConfig(pattern="8:16"))
    assert all(p.is_contiguous() for p in tiny_llama.parameters())


def test_saved_quantised_models_hold_plain_weights(copies_wanted, tiny_model_folder, tmp_path):
    from amber_ext.models import load_model

    loaded = load_model(str(tiny_model_folder))
    config = amber_ext.OutstandingSparseConfig(pattern="12:16w", direction="none")
    report = amber_ext.quantize_(loaded.model, config)
    layers = [m for m in loaded.model.modules() if isinstance(m, QuantizedLinear)]
    copies = sum(layer.copies_bytes for layer in layers)
    assert copies > 0
    amber_ext.save_quantized(loaded.model, tmp_path)
    again = amber_ext.load_quantized(tmp_path)
    tokens = torch.randint(3, 29, (2, 20))
    with torch.inference_mode():
        assert torch.equal(again(tokens).logits, loaded.model(tokens).logits)
    copies_wanted[0] = False
    plain = load_model(str(tiny_model_folder))
    assert report.bytes_after == amber_ext.quantize_(plain.model, config).bytes_after + copies


def edit_in_place(layer):
    with torch.no_grad():
        layer.weight.neg_()


def assign(layer):
    layer.weight = torch.nn.Parameter(torch.randn_like(layer.weight).contiguous())


def assign_data(layer):
    layer.weight.data = torch.randn_like(layer.weight).contiguous()


@pytest.mark.parametrize("change", [edit_in_place, assign, assign_data])
@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("score", ["magnitude", "wanda"])
def test_copies_follow_a_weight_that_changes(copies_wanted, change, compiles, score):
    layer, x = AmberLinear.from_linear(torch.nn.Linear(96, 8), "8:16", score), torch.randn(5, 96)
    torch._dynamo.reset()
    call = torch.compile(layer, backend="aot_eager", fullgraph=True) if compiles else layer
    memory = layer.wide_weight.data_ptr()
    with torch.no_grad():
        call(x)
        change(layer)
        fresh = torch.nn.Linear(96, 8)
        fresh.load_state_dict(layer.state_dict())
        want = AmberLinear.from_linear(fresh, "8:16", score)
        assert torch.allclose(call(x), want(x), atol=1e-5)
    assert torch.equal(layer.wide_weight, want.wide_weight)
    if change is edit_in_place or compiles:
        assert layer.wide_weight.data_ptr() == memory  # a CUDA graph reads them there


def test_copies_of_8_bit_weights_follow(copies_wanted):
    layer = QuantizedLinear.from_linear(torch.nn.Linear(96, 8), pattern="8:16")
    scale = layer.channel_scale.clone()
    layer.weight.bitwise_not_()
    with torch.no_grad():
        layer(torch.randn(5, 96))
    check_copies(layer, "8:16")
    assert torch.equal(layer.channel_scale, scale)
