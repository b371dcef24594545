"""8-bit layers on a GPU."""

import pytest
import torch
from helpers_gpu import DTYPES, SPARSE_DTYPES, WINDOWED, needs_gpu, w8a8_operands

import amber_ext

pytestmark = needs_gpu


@pytest.mark.parametrize("quantized", ["int8", "e4m3"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pattern", ["1:1", "2:4", "8:16"])
def test_quantised_activations_equal_the_reference(pattern, dtype, quantized):
    x, _, _, _, factors = w8a8_operands(33, 4096, 8, quantized, dtype)
    for options in ({}, factors, {**factors, "rescale": "variance"}):
        got = amber_ext.quantize_activations(x, pattern, **options, dtype=quantized, backend="cuda")
        want = amber_ext.quantize_activations(x, pattern, **options, dtype=quantized, backend="reference")
        assert torch.equal(got[0].view(torch.int8), want[0].view(torch.int8))
        torch.testing.assert_close(got[1], want[1], rtol=1e-6, atol=0, equal_nan=True)


@pytest.mark.parametrize("rescale", ["none", "variance"])
@pytest.mark.parametrize("dtype", SPARSE_DTYPES)
@pytest.mark.parametrize("quantized", ["int8", "e4m3"])
@pytest.mark.parametrize("tokens", [1, 5, 16, 17, 65, 4097])
def test_w8a8_linear_equals_the_reference(tokens, quantized, dtype, rescale):
    x, weight, weight_scale, bias, factors = w8a8_operands(tokens, 512, 272, quantized, dtype)
    for pattern, backends in (("1:1", ["cuda"]), ("2:4", ["cuda", "cutlass"]), ("8:16", ["cuda"])):
        options = {"pattern": pattern, **factors, "rescale": rescale}
        want = amber_ext.linear_w8a8(x, weight, weight_scale, bias, **options, backend="reference")
        for backend in backends:
            got = amber_ext.linear_w8a8(x, weight, weight_scale, bias, **options, backend=backend)
            # int8 products are exact: at most the last bit of the output differs.
            tolerance = 2 * torch.finfo(dtype).eps if quantized == "int8" else 0.02
            torch.testing.assert_close(
                got.float(),
                want.float(),
                rtol=tolerance,
                atol=0.02 * want.nan_to_num().abs().max().item() * (quantized == "e4m3") + 1e-3,
                equal_nan=True,
            )


@pytest.mark.parametrize("quantized", ["int8", "e4m3"])
@pytest.mark.parametrize("pattern", WINDOWED)
def test_windowed_w8a8_equals_the_reference(pattern, quantized):
    x, weight, weight_scale, bias, factors = w8a8_operands(130, 512, 272, quantized)
    options = {"pattern": pattern, **factors, "rescale": "variance"}
    want = amber_ext.linear_w8a8(x, weight, weight_scale, bias, **options, backend="reference").float()
    wide = amber_ext.widen_weight(weight, pattern)
    for backend in ("cutlass", "cuda"):
        got = amber_ext.linear_w8a8(x, wide, weight_scale, bias, **options, backend=backend)
        atol = 0.02 * want.nan_to_num().abs().max().item() * (quantized == "e4m3") + 1e-3
        rtol = 2 * torch.finfo(x.dtype).eps if quantized == "int8" else 0.02
        torch.testing.assert_close(got.float(), want, rtol=rtol, atol=atol, equal_nan=True)


def test_w8a8_refusals():
    x, weight, weight_scale, _, _ = w8a8_operands(4, 512, 272, "int8")
    with pytest.raises(ValueError, match="has no copies for the windows of 4:8"):
        amber_ext.linear_w8a8(x, weight, weight_scale, pattern="4:8", backend="cutlass")
    with pytest.raises(RuntimeError, match="pattern: '1:4' does not run on a sparse GEMM"):
        amber_ext.linear_w8a8(x, weight, weight_scale, pattern="1:4", backend="cutlass")
    with pytest.raises(RuntimeError, match="N and K to be multiples of 8"):
        amber_ext.linear_w8a8(x, weight[:250].contiguous(), weight_scale[:250], backend="cuda")
    with pytest.raises(RuntimeError, match="not in this build"):
        amber_ext.linear_w8a8(x.float(), weight, weight_scale, pattern="2:4", backend="cutlass")
    with pytest.raises(RuntimeError, match="does not take int8 operands"):
        torch.ops.amber.linear_w8a8(x, weight, weight_scale, None, None, None, "2:4", "none", ["sm90_bf16_128x256x128_2x1_cooperative"], [])  # fmt: skip
