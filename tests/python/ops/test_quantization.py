"""8-bit activations and weights: the reference against numpy, the kernel against the reference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import awkward_tokens, positive

from amber_ext import Pattern, nm_prune, quantize_activations, quantize_weight
from amber_ext.ops import library

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(library.LOAD_ERROR is not None, reason=str(library.LOAD_ERROR)))]  # fmt: skip


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


@pytest.mark.parametrize("dtype", ["int8", "e4m3"])
@pytest.mark.parametrize("pattern", ["1:1", "2:4"])
def test_tokens_without_channels(pattern, dtype):
    for shape in ((3, 0), (0, 0), (2, 3, 0), (0, 8)):
        found = [
            quantize_activations(
                torch.empty(shape), pattern, rescale="variance", dtype=dtype, backend=backend
            )
            for backend in ("cpu", "reference")
        ]
        for (values, scales), (same_values, same_scales) in (found, found[::-1]):
            assert values.shape == shape and values.dtype == same_values.dtype
            assert torch.equal(scales, torch.zeros(shape[:-1])) and torch.equal(scales, same_scales)
