"""Masks and pruned copies on a GPU."""

import pytest
import torch
from helpers_gpu import DTYPES, awkward, needs_gpu

import amber_ext
from amber_ext import Pattern
from amber_ext.ops import reference

pytestmark = needs_gpu


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("text", ["2:4", "4:8", "8:16", "3:5", "16:32", "1:1", "10:16w", "12:16w"])
def test_masks_and_pruned_copies_equal_the_reference(text, dtype):
    pattern = Pattern(text)
    for shape in ((pattern.m,), (3, 65, pattern.m * 17), (0, pattern.m), (129, pattern.m * 256)):
        x = awkward(shape, dtype, len(shape))
        scale = torch.rand(shape[-1]) + 0.1
        for c in (None, scale):
            device_c = None if c is None else c.cuda()
            assert torch.equal(
                amber_ext.nm_mask(x.cuda(), text, device_c, backend="cuda").cpu(),
                reference.nm_mask(x, pattern, c),
            )
            got = amber_ext.nm_prune(x.cuda(), text, device_c, backend="cuda").cpu()
            assert torch.equal(got.nan_to_num(7), reference.nm_prune(x, pattern, c).nan_to_num(7))


def test_rescale_and_non_contiguous_input():
    x = torch.randn(9, 64, 33, device="cuda").transpose(1, 2)
    got = amber_ext.nm_prune(x, "4:8", rescale="variance", backend="cuda")
    want = reference.nm_prune(x.contiguous(), Pattern("4:8"), rescale="variance")
    assert torch.allclose(got, want, rtol=1e-6)


def test_opcheck():
    x = torch.randn(3, 64, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(8, 64, device="cuda", dtype=torch.bfloat16)
    torch.library.opcheck(torch.ops.amber.nm_mask.default, (x, None, "2:4"))
    torch.library.opcheck(torch.ops.amber.nm_prune.default, (x, None, "4:8", "none"))
    for kernel in ("masked_dense", "sparse_gemm"):
        torch.library.opcheck(
            torch.ops.amber.linear.default, (x, weight, None, None, "2:4", "none", [kernel], [])
        )
