"""Sparse GEMMs of 16 bits on a GPU."""

import pytest
import torch
from helpers_gpu import SPARSE_DTYPES, WINDOWED, exact, needs_gpu

import amber_ext

pytestmark = needs_gpu


@pytest.mark.parametrize("dtype", SPARSE_DTYPES)
@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 127, 4097])
@pytest.mark.parametrize("with_bias", [False, True])
def test_sparse_gemm_against_fp64(tokens, dtype, with_bias):
    torch.manual_seed(tokens)
    k, n = 512, 264
    x, weight = (
        torch.randn(tokens, k, device="cuda", dtype=dtype),
        torch.randn(n, k, device="cuda", dtype=dtype),
    )
    bias = torch.randn(n, device="cuda", dtype=dtype) if with_bias else None
    scale = torch.rand(k, device="cuda") + 0.1
    got = amber_ext.linear(x, weight, bias, pattern="2:4", scale=scale, backend="cutlass")
    want, magnitude = exact(x, weight, bias, scale)
    bound = magnitude * k * 2**-23 + want.abs() * torch.finfo(dtype).eps
    assert got.shape == want.shape and got.is_contiguous()
    assert ((got.double() - want).abs() <= bound).all()


@pytest.mark.parametrize("dtype", SPARSE_DTYPES)
@pytest.mark.parametrize("tokens", [1, 65, 1000])
@pytest.mark.parametrize("pattern", WINDOWED)
def test_windowed_sparse_gemm_against_fp64(pattern, tokens, dtype):
    torch.manual_seed(tokens)
    for k in (448, 1024):  # with padding to K', and without
        x = torch.randn(tokens, k, device="cuda", dtype=dtype)
        weight = torch.randn(264, k, device="cuda", dtype=dtype)
        scale = torch.rand(k, device="cuda") + 0.1
        wide = amber_ext.widen_weight(weight, pattern)
        got = amber_ext.linear(x, wide, pattern=pattern, scale=scale, backend="cutlass")
        want, magnitude = exact(x, weight, None, scale, pattern)
        bound = magnitude * k * 2**-23 + want.abs() * torch.finfo(dtype).eps
        assert ((got.double() - want).abs() <= bound).all()
        masked_dense = amber_ext.linear(x, wide, pattern=pattern, scale=scale, backend="cuda")
        assert ((masked_dense.double() - want).abs() <= bound).all()


def test_shapes_that_a_sparse_gemm_refuses():
    x = torch.randn(4, 512, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(250, 512, device="cuda", dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="N = 250 is not a multiple of 8"):
        amber_ext.linear(x, weight, pattern="2:4", backend="cutlass")
    weight = torch.randn(256, 512, device="cuda", dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="has no copies for the windows of 4:8"):
        amber_ext.linear(x, weight, pattern="4:8", backend="cutlass")
    with pytest.raises(
        RuntimeError, match="pattern: '1:4' does not run on a sparse GEMM; allowed: '2:4', '4:8'"
    ):
        amber_ext.linear(x, weight, pattern="1:4", backend="cutlass")
    with pytest.raises(RuntimeError, match="rescale: 'variance' does not run on a sparse GEMM"):
        amber_ext.linear(x, weight, pattern="2:4", rescale="variance", backend="cutlass")
    with pytest.raises(RuntimeError, match="not in this build"):
        amber_ext.linear(x.float(), weight.float(), pattern="2:4", backend="cutlass")
    with pytest.raises(RuntimeError, match="weight: it must be contiguous"):
        amber_ext.linear(x, weight.t().contiguous().t(), pattern="2:4", backend="cutlass")


def test_empty_misaligned_and_leading_shapes():
    weight = torch.randn(256, 512, device="cuda", dtype=torch.bfloat16)
    assert amber_ext.linear(weight[:0], weight, pattern="2:4", backend="cutlass").shape == (0, 256)
    x = torch.randn(2 * 3 * 512 + 1, device="cuda", dtype=torch.bfloat16)[1:].view(2, 3, 512)
    got = amber_ext.linear(x, weight, pattern="2:4", backend="cutlass")
    want = amber_ext.linear(x.clone().view(6, 512), weight, pattern="2:4", backend="cutlass")
    assert torch.equal(got, want.view(2, 3, 256))


def test_memory_and_no_synchronisation():
    x = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    scale = torch.rand(4096, device="cuda") + 0.5
    amber_ext.linear(x, weight, pattern="2:4", scale=scale, backend="cutlass")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        y = amber_ext.linear(x, weight, pattern="2:4", scale=scale, backend="cutlass")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    extra = torch.cuda.max_memory_allocated() - before - y.untyped_storage().nbytes()
    assert extra <= 0.6 * x.nbytes
