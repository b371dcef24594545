import copy
import io

import pytest
import torch
import torch.nn.functional as F

import amber_ext
from amber_ext import AmberLinear, Pattern
from amber_ext.ops import reference
from amber_ext.ops.backends import Decision


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(32,), (1, 32), (65, 32), (2, 3, 4096), (0, 32)])
def test_product_against_fp64(shape, dtype, backend):
    torch.manual_seed(0)
    k = shape[-1]
    x, weight, bias = torch.randn(shape).to(dtype), torch.randn(24, k).to(dtype), torch.randn(24).to(dtype)
    scale = torch.rand(k) + 0.1
    for b in (bias, None):
        got = amber_ext.linear(x, weight, b, pattern="2:4", scale=scale, backend=backend)
        kept = x.double() * reference.nm_mask(x, Pattern("2:4"), scale)
        exact = F.linear(kept, weight.double(), None if b is None else b.double())
        # Rounding of the result plus fp32 accumulation over K products.
        magnitude = F.linear(kept.abs(), weight.double().abs()) + 1
        bound = magnitude * (k * torch.finfo(torch.float32).eps) + exact.abs() * torch.finfo(dtype).eps
        assert got.dtype == dtype and got.shape == (*shape[:-1], 24)
        assert ((got.double() - exact).abs() <= bound).all()


def test_linear_rescale_is_prune_then_product():
    x, weight = torch.randn(9, 64), torch.randn(5, 64)
    got = amber_ext.linear(x, weight, pattern="4:8", rescale="variance")
    assert torch.equal(got, F.linear(amber_ext.nm_prune(x, "4:8", rescale="variance"), weight))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    "weight, bias, error, message",
    [
        (torch.ones(3, 4), None, ValueError, r"weight: shape \[3, 4\] .* K = 8"),
        (torch.ones(8), None, ValueError, r"weight: shape \[8\]"),
        (torch.ones(3, 8).half(), None, TypeError, "weight: dtype torch.float16 differs"),
        (torch.ones(3, 8), torch.ones(4), ValueError, r"bias: shape \[4\] .* \[N\] = \[3\]"),
        (torch.ones(3, 8), torch.ones(3).half(), TypeError, "bias: dtype torch.float16"),
        (torch.ones(3, 8, device="meta"), None, ValueError, "weight: it is on meta but x is on cpu"),
    ],
)
def test_bad_input(weight, bias, error, message, backend):
    with pytest.raises(error, match=message) as caught:
        amber_ext.linear(torch.ones(2, 8), weight, bias, pattern="2:4", backend=backend)
    assert "\n" not in str(caught.value)


@pytest.fixture
def dense():
    torch.manual_seed(1)
    return torch.nn.Linear(64, 16)


def test_layer_shares_parameters_and_keys(dense):
    layer = AmberLinear.from_linear(dense, "2:4")
    assert layer.weight is dense.weight and layer.bias is dense.bias
    assert list(layer.state_dict()) == list(dense.state_dict()) == ["weight", "bias"]
    assert isinstance(layer, torch.nn.Linear) and not layer.training ^ dense.training
    assert not hasattr(dense, "channel_scale") and type(dense) is torch.nn.Linear
    x = torch.randn(3, 64)
    with torch.no_grad():
        want = amber_ext.linear(x, dense.weight, dense.bias, pattern="2:4", scale=layer.channel_scale)
        assert torch.equal(layer(x), want)
        back = layer.to_linear()
        assert type(back) is torch.nn.Linear and back.weight is dense.weight
        assert torch.equal(back(x), dense(x)) and not dict(back.named_buffers())
    assert "pattern=2:4, score=robust_norm" in repr(layer)


def test_scale_stays_fp32_and_follows_the_weight(dense):
    layer = AmberLinear.from_linear(dense, "2:4", score="wanda")
    before = layer.channel_scale.clone()
    layer.to(torch.bfloat16)
    assert layer.weight.dtype == torch.bfloat16
    assert layer.channel_scale.dtype == torch.float32 and torch.equal(layer.channel_scale, before)
    assert layer(torch.randn(2, 64).bfloat16()).dtype == torch.bfloat16
    layer.float()
    other = torch.nn.Linear(64, 16)
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer.channel_scale, amber_ext.channel_scale(other.weight, "wanda"))


def test_layer_copies_and_pickles(dense):
    layer = AmberLinear.from_linear(dense, "4:8", rescale="variance")
    x = torch.randn(3, 64)
    with torch.no_grad():
        want = layer(x)
        assert torch.equal(copy.deepcopy(layer)(x), want)
        buffer = io.BytesIO()
        torch.save(layer, buffer)
        buffer.seek(0)
        assert torch.equal(torch.load(buffer, weights_only=False)(x), want)


def test_layer_refuses(dense):
    with pytest.raises(ValueError, match="K = 64 is not a multiple of M = 30"):
        AmberLinear.from_linear(dense, "7:30")
    with pytest.raises(ValueError, match="score: 'l2' is not known"):
        AmberLinear.from_linear(dense, "2:4", score="l2")
    with pytest.raises(ValueError, match="rescale: 'x' is not known"):
        AmberLinear.from_linear(dense, "2:4", rescale="x")
    with pytest.raises(ValueError, match="backend: 'x' is not known"):
        AmberLinear.from_linear(dense, "2:4", backend="x")


def test_explain(dense):
    layer = AmberLinear.from_linear(dense, "2:4")
    x = torch.randn(3, 64)
    assert amber_ext.explain(layer, x).backend == "cpu"
    layer.backend = "reference"
    assert amber_ext.explain(layer, x) == Decision("reference", "asked for")
    with amber_ext.decode():
        assert amber_ext.explain(layer, x).reason == "decode runs dense"
    assert amber_ext.explain(dense, x).backend == "dense"
    layer.backend = "auto"
    with pytest.raises(ValueError, match="scale: it is on cpu but x is on meta"):  # as the layer itself
        amber_ext.explain(layer, x.to("meta"))
    assert "has no meta kernels" in amber_ext.explain(layer.to("meta"), x.to("meta")).reason


def test_auto_says_why_when_the_library_is_not_there(dense, monkeypatch):
    from amber_ext.ops import library

    monkeypatch.setattr(library, "LOAD_ERROR", "not built")
    layer = AmberLinear.from_linear(dense, "2:4")
    decision = amber_ext.explain(layer, torch.randn(3, 64))
    assert decision.backend == "reference" and "not built" in decision.reason
    with torch.no_grad():
        assert layer(torch.randn(3, 64)).shape == (3, 16)
    layer.backend = "cpu"
    with pytest.raises(RuntimeError, match="cannot run here: the op library is not built"):
        layer(torch.randn(3, 64))
