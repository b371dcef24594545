"""8-bit layers: products against int64 arithmetic, shapes, bad input, no backward."""

import pytest
import torch
from inputs import awkward_tokens, positive

from amber_ext import Pattern, linear_w8a8, quantize_activations, quantize_weight, widen_weight
from amber_ext.ops import dense_products, library
from amber_ext.ops.checks import MAX_IN_FEATURES_8BIT
from amber_ext.ops.choice.products import plan_for
from amber_ext.ops.dense_products import int8_product, product_in_exact_floats

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(library.LOAD_ERROR is not None, reason=str(library.LOAD_ERROR)))]  # fmt: skip


def extreme_operands():
    torch.manual_seed(2)
    random = torch.randint(-127, 128, (5, 14336), dtype=torch.int8), torch.randint(-127, 128, (16, 14336), dtype=torch.int8)  # fmt: skip
    same = torch.full((3, 14336), 127, dtype=torch.int8), torch.full((8, 14336), 127, dtype=torch.int8)
    opposite = same[0], -same[1]
    sparse = torch.zeros(4, 2048, dtype=torch.int8), torch.randint(-127, 128, (8, 2048), dtype=torch.int8)
    sparse[0][1, 1234] = 127  # one huge outlier, and zero rows
    odd = (
        torch.randint(-127, 128, (1, 1), dtype=torch.int8),
        torch.randint(-127, 128, (3, 1), dtype=torch.int8),
    )
    lowest = torch.full((2, 4096), -127, dtype=torch.int8), torch.full((8, 4096), -128, dtype=torch.int8)
    return [random, same, opposite, sparse, odd, lowest]


@pytest.mark.parametrize("product", [int8_product, product_in_exact_floats])
@pytest.mark.parametrize("case", range(6))
def test_int8_products_are_exact(product, case):
    values, weight = extreme_operands()[case]
    assert torch.equal(product(values, weight).long(), values.long() @ weight.long().t())


needs_scaled_product = pytest.mark.skipif(
    not dense_products.CPU_HAS_SCALED_PRODUCT, reason="this CPU runs torch's int8 product"
)


@needs_scaled_product
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", range(6))
def test_scaled_products_are_exact(dtype, case):
    values, weight = extreme_operands()[case]
    token_scale, weight_scale = torch.rand(len(values)) + 0.1, torch.rand(len(weight)) + 0.1
    bias = torch.randn(len(weight)).to(dtype)
    y = torch.ops.amber.scaled_product(values, token_scale, weight, weight_scale, bias, str(dtype)[6:])
    product = (values.long() @ weight.long().t()).float()
    assert torch.equal(y, (product * token_scale[:, None] * weight_scale + bias.float()).to(dtype))


@needs_scaled_product
@pytest.mark.parametrize("tokens", [1, 12, 13, 70])
@pytest.mark.parametrize("threads", [1, 5])
def test_both_products_of_the_cpu_give_the_same(tokens, threads, monkeypatch):
    torch.manual_seed(8)
    x, weight = awkward_tokens(13, 96, torch.bfloat16), torch.randn(200, 96)
    x = x.repeat(6, 1)[:tokens]
    wide = widen_weight(quantize_weight(weight)[0], "8:16")  # its rows lie apart for a product without copies
    arguments = (quantize_weight(weight)[1], torch.randn(200).bfloat16())
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = linear_w8a8(x, wide, *arguments, pattern="8:16", backend="cpu")
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(dense_products, "CPU_HAS_SCALED_PRODUCT", False)
    torchs = linear_w8a8(x, wide, *arguments, pattern="8:16", backend="cpu")
    torch.testing.assert_close(y, torchs, rtol=0, atol=0, equal_nan=True)


@needs_scaled_product
@pytest.mark.parametrize("tokens", [3, 40])
def test_a_changed_weight_is_used_at_once(tokens):
    """Nothing of the weight is kept between calls."""
    torch.manual_seed(9)
    x = torch.randn(tokens, 64)
    weight, weight_scale = quantize_weight(torch.randn(80, 64))
    before = linear_w8a8(x, weight, weight_scale)
    weight.data.neg_()
    assert torch.equal(linear_w8a8(x, weight, weight_scale), -before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pattern", ["1:1", "2:4", "4:8", "12:16w"])
def test_linear_against_int64(backend, dtype, pattern):
    torch.manual_seed(3)
    x, weight, bias = (
        awkward_tokens(12, 160, dtype),
        torch.randn(40, 160).to(dtype),
        torch.randn(40).to(dtype),
    )
    smooth, scale = positive(160), positive(160)
    quantized, weight_scale = quantize_weight(weight)
    y = linear_w8a8(
        x, quantized, weight_scale, bias, pattern=pattern, scale=scale, smooth=smooth, backend=backend
    )
    assert y.dtype == dtype
    values, token_scale = quantize_activations(x, pattern, scale=scale, smooth=smooth, backend="reference")
    product = (values.long() @ quantized.long().t()).float()
    want = (product * token_scale[:, None] * weight_scale + bias.float()).to(dtype)
    torch.testing.assert_close(y, want, rtol=0, atol=0, equal_nan=True)
    # NaN and Inf fill their own tokens and no other.
    assert y[1].isnan().all() and y[2].isnan().all() and y[4:].isfinite().all()
    assert not y[3].isnan().any()  # the outlier may overflow fp16
    assert torch.equal(y[0], bias)


def test_it_approximates_the_dense_layer():
    torch.manual_seed(4)
    x, weight = torch.randn(64, 256), torch.randn(48, 256)
    y = linear_w8a8(x, *quantize_weight(weight))
    want = x @ weight.t()
    assert (y - want).norm() < 0.015 * want.norm()


@pytest.mark.parametrize("backend", BACKENDS)
def test_shapes(backend):
    torch.manual_seed(6)
    weight, weight_scale = quantize_weight(torch.randn(8, 64))
    x = torch.randn(2, 3, 64)
    y = linear_w8a8(x, weight, weight_scale, pattern="2:4", backend=backend)
    assert y.shape == (2, 3, 8)
    flat = linear_w8a8(x.flatten(0, 1), weight, weight_scale, pattern="2:4", backend=backend)
    assert torch.equal(y.flatten(0, 1), flat)
    assert torch.equal(linear_w8a8(x[0, 0], weight, weight_scale, pattern="2:4", backend=backend), flat[0])
    strided = torch.randn(3, 64, 5).transpose(1, 2)[:, ::2]
    assert torch.equal(
        linear_w8a8(strided, weight, weight_scale, backend=backend),
        linear_w8a8(strided.contiguous(), weight, weight_scale, backend=backend),
    )
    assert linear_w8a8(x[:0], weight, weight_scale, backend=backend).shape == (0, 3, 8)
    empty = linear_w8a8(torch.randn(2, 0), weight[:, :0], weight_scale, torch.ones(8), backend=backend)
    assert torch.equal(empty, torch.ones(2, 8))


def test_e4m3_runs_by_the_reference_on_the_cpu():
    torch.manual_seed(7)
    x, weight = torch.randn(8, 64), torch.randn(16, 64)
    quantized, weight_scale = quantize_weight(weight, "e4m3")
    y = linear_w8a8(x, quantized, weight_scale)
    assert (y - x @ weight.t()).norm() < 0.06 * (x @ weight.t()).norm()
    plan = plan_for(x.dtype, 64, quantized, None, Pattern("1:1"), "none", "auto", False)
    assert plan.backend == "reference" and "e4m3" in plan.reason
    if library.LOAD_ERROR is None:
        with pytest.raises(RuntimeError, match="backend: 'cpu' cannot run here: torch has no e4m3 product"):
            linear_w8a8(x, quantized, weight_scale, backend="cpu")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"weight": torch.ones(4, 8)}, "weight: dtype torch.float32 is not supported; allowed: torch.int8"),
        ({"weight": torch.ones(4, 12, dtype=torch.int8)}, r"weight: shape \[4, 12\] does not match x"),
        ({"weight_scale": torch.ones(3)}, r"weight_scale: torch.float32 \[3\] is not allowed; .* \[4\]"),
        ({"weight_scale": torch.ones(4).half()}, "weight_scale: torch.float16"),
        ({"bias": torch.ones(4).half()}, "bias: torch.float16"),
        ({"bias": torch.ones(5)}, r"bias: torch.float32 \[5\]"),
        ({"pattern": "3:5"}, "K = 8 is not a multiple of M = 5"),
        ({"pattern": "2-4"}, "pattern: '2-4' is not allowed"),
        ({"smooth": torch.ones(7)}, r"smooth: shape \[7\] does not match x; allowed: \[K\] = \[8\]"),
        ({"smooth": torch.zeros(8)}, r"smooth: element 0 is 0(\.0)?; every element must be finite and > 0"),
        ({"scale": torch.full((8,), torch.inf)}, "scale: element 0 is inf"),
        ({"scale": torch.ones(8).double()}, "scale: dtype torch.float64"),
        ({"rescale": "mean"}, "rescale: 'mean' is not known"),
        ({"backend": "tpu"}, "backend: 'tpu' is not known"),
        ({"x": torch.ones(2, 8, dtype=torch.int32)}, "x: dtype torch.int32 is not supported"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_arguments(change, message, backend):
    arguments = {
        "x": torch.ones(2, 8),
        "weight": torch.ones(4, 8, dtype=torch.int8),
        "weight_scale": torch.ones(4),
        "backend": backend,
        **change,
    }
    x, weight, weight_scale = (arguments.pop(name) for name in ("x", "weight", "weight_scale"))
    with pytest.raises((ValueError, TypeError, RuntimeError), match=message):
        linear_w8a8(x, weight, weight_scale, **arguments)


def test_more_bad_arguments():
    with pytest.raises(ValueError, match="dtype: 'int4' is not known; allowed: 'int8', 'e4m3'"):
        quantize_weight(torch.ones(2, 2), "int4")
    with pytest.raises(ValueError, match="weight: it contains NaN or Inf"):
        quantize_weight(torch.tensor([[1.0, torch.nan]]))
    with pytest.raises(ValueError, match="not empty"):
        quantize_weight(torch.ones(0, 2))
    with pytest.raises(ValueError, match=f"int32 sums are exact up to {MAX_IN_FEATURES_8BIT}"):
        columns = MAX_IN_FEATURES_8BIT + 1
        linear_w8a8(torch.zeros(1, columns), torch.zeros(1, columns, dtype=torch.int8), torch.ones(1))
    with pytest.raises(RuntimeError, match="backend: 'cutlass' cannot run here: x is on cpu"):
        linear_w8a8(torch.ones(1, 4), torch.ones(1, 4, dtype=torch.int8), torch.ones(1), pattern="2:4", backend="cutlass")  # fmt: skip
    with pytest.raises(RuntimeError, match="'cutlass' has no quantize_activations"):
        quantize_activations(torch.ones(1, 4), backend="cutlass")


@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_raises(backend):
    x = torch.randn(3, 64, requires_grad=True)
    y = linear_w8a8(x, *quantize_weight(torch.randn(8, 64)), pattern="2:4", backend=backend)
    with pytest.raises(RuntimeError, match="backward through an N:M pruned layer is not supported"):
        y.sum().backward()
