"""8-bit layers: the reference against fp64 arithmetic, the kernels against the reference, bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amber_ext import Pattern, linear_w8a8, nm_prune, quantize_activations, quantize_weight
from amber_ext.ops import library
from amber_ext.ops.backends import choose_product
from amber_ext.ops.checks import MAX_IN_FEATURES_8BIT
from amber_ext.ops.int8_product import int8_product, product_in_exact_floats
from amber_ext.ops.sparse_gemms import problem_of

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(library.LOAD_ERROR is not None, reason=str(library.LOAD_ERROR)))]  # fmt: skip


def positive(*shape):
    return torch.rand(*shape) + 0.25


def awkward_tokens(rows, cols, dtype):
    x = torch.randn(rows, cols).to(dtype)
    x[0] = 0
    x[1, 3] = torch.nan
    x[2, 5] = -torch.inf
    x[3, 7] = 60000  # one huge outlier
    x[4] *= 1e-6
    x[5] = -0.0
    x[6] = torch.where(torch.arange(cols) % 2 == 0, 1.5, -1.5)  # every value is +-127
    return x


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pattern", ["1:1", "2:4", "8:16", "10:16w"])
def test_quantisation_against_numpy(backend, dtype, pattern):
    torch.manual_seed(0)
    x, smooth, scale = awkward_tokens(24, 96, dtype), positive(96), positive(96)
    values, token_scale = quantize_activations(x, pattern, scale=scale, smooth=smooth, backend=backend)
    assert values.dtype == torch.int8 and token_scale.dtype == torch.float32
    assert values.shape == x.shape and token_scale.shape == x.shape[:-1]

    kept = nm_prune(x, pattern, scale, backend="reference").float().numpy() * smooth.numpy()
    for t, row in enumerate(kept):
        if not np.isfinite(row).all():
            assert token_scale[t].isnan() and not values[t].any()
            continue
        absmax = np.float32(max(np.abs(row).max(), 2.0**-110))
        assert token_scale[t] == absmax / np.float32(127)
        units = row * (np.float32(127) / absmax)
        assert np.array_equal(values[t].numpy(), np.rint(units).astype(np.int8))


@pytest.mark.skipif(library.LOAD_ERROR is not None, reason=str(library.LOAD_ERROR))
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    groups=st.integers(1, 20),
    pattern=st.sampled_from(["1:1", "1:2", "2:4", "4:8", "8:16", "3:5", "16:32", "10:16w", "12:16w"]),
    dtype=st.sampled_from(DTYPES),
    quantized=st.sampled_from(["int8", "e4m3"]),
    factors=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_kernel_is_the_reference_bit_for_bit(rows, groups, pattern, dtype, quantized, factors, seed):
    torch.manual_seed(seed)
    cols = groups * Pattern(pattern).m
    x = (torch.randn(rows, cols) * 10 ** torch.randn(rows, 1)).to(dtype)
    options = {"scale": positive(cols), "smooth": positive(cols)} if factors else {}
    got = quantize_activations(x, pattern, **options, dtype=quantized, backend="cpu")
    want = quantize_activations(x, pattern, **options, dtype=quantized, backend="reference")
    assert torch.equal(got[0].view(torch.int8), want[0].view(torch.int8))
    assert torch.equal(got[1], want[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_rescale_rides_in_the_token_scale(backend):
    torch.manual_seed(1)
    x, smooth = torch.randn(17, 64), positive(64)
    plain = quantize_activations(x, "2:4", smooth=smooth, backend=backend)
    rescaled = quantize_activations(x, "2:4", smooth=smooth, rescale="variance", backend=backend)
    assert torch.equal(plain[0], rescaled[0])
    v = x.double() * smooth
    kept = torch.where(nm_prune(x, "2:4") != 0, v, 0.0)
    factor = (v.var(-1, correction=0) / kept.var(-1, correction=0)).sqrt()
    torch.testing.assert_close(rescaled[1], (plain[1] * factor).float())
    dense = quantize_activations(x, rescale="variance", backend=backend)
    torch.testing.assert_close(dense[1], quantize_activations(x, backend=backend)[1])


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


def test_weights_round_trip():
    torch.manual_seed(5)
    weight = torch.randn(6, 32)
    weight[2] = 0
    for dtype, largest, error in (("int8", 127, 0.5 / 127), ("e4m3", 448, 1 / 16)):
        values, scale = quantize_weight(weight, dtype)
        assert scale.shape == (6,) and scale.dtype == torch.float32
        absmax = weight.abs().amax(1)
        back = values.float() * scale[:, None]
        assert ((back - weight).abs() <= absmax[:, None] * error).all()
        assert not values[2].float().any()
        torch.testing.assert_close(scale[absmax > 0], (absmax / largest)[absmax > 0])


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
    problem = problem_of(x, quantized, None, Pattern("1:1"), "none")
    assert "e4m3" in choose_product(problem).reason
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


@pytest.mark.skipif(library.LOAD_ERROR is not None, reason=str(library.LOAD_ERROR))
def test_opcheck():
    x, factors = torch.randn(5, 64), positive(64)
    torch.library.opcheck(
        torch.ops.amber.quantize_activations, (x, factors, factors, "2:4", "variance", "int8")
    )
    torch.library.opcheck(torch.ops.amber.quantize_activations, (x, None, None, "1:1", "none", "e4m3"))
    product = torch.randint(-9, 9, (5, 6), dtype=torch.int32)
    for bias in (None, torch.randn(6).bfloat16()):
        torch.library.opcheck(
            torch.ops.amber.dequantize, (product, torch.rand(5), torch.rand(6), bias, "bfloat16")
        )


@pytest.mark.skipif(library.LOAD_ERROR is not None, reason=str(library.LOAD_ERROR))
@pytest.mark.parametrize(
    "arguments, message",
    [
        (("2:4x", "none", "int8"), "pattern: '2:4x' is not allowed; it must be 'N:M'"),
        (("2:3", "none", "int8"), "K = 64 is not a multiple of M = 3"),
        (("2:4", "mean", "int8"), "rescale: 'mean' is not known"),
        (("2:4", "none", "int4"), "dtype: 'int4' is not known"),
    ],
)
def test_the_op_checks_for_itself(arguments, message):
    with pytest.raises(RuntimeError, match=message):
        torch.ops.amber.quantize_activations(torch.ones(1, 64), None, None, *arguments)
