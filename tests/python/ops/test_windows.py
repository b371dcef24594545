"""Window layouts and widened weights. No GPU needed."""

import pytest
import torch
import torch.nn.functional as F

import amber_ext
from amber_ext import (
    Pattern,
    widen_weight,
)
from amber_ext.ops import library, reference
from amber_ext.ops.pattern import extra_windows, fitting_sets, widened_features

WINDOWED = ["4:8", "8:16", "10:16w", "12:16w"]

pytestmark = pytest.mark.skipif(library.LOAD_ERROR is not None, reason="amber_ext was not built")


def test_every_4_8_and_8_16_mask_fits():
    sets = torch.arange(1 << 16)
    kept = sum((sets >> i) & 1 for i in range(16))
    low = sum((sets >> i) & 1 for i in range(8))
    assert (kept == 8).sum() == 12870 and fitting_sets(2)[kept == 8].all()
    assert ((kept == 8) & (low == 4)).sum() == 70 * 70
    for extra in (0, 1, 2):
        assert kept[fitting_sets(extra)].max() == 8 + 2 * extra
    # No extra windows: two of each quad.
    quads = [sum((sets >> i) & 1 for i in range(q, q + 4)) <= 2 for q in (0, 4, 8, 12)]
    assert torch.equal(fitting_sets(0), torch.stack(quads).all(0))


@pytest.mark.parametrize("text", ["10:16w", "12:16w"])
def test_greedy_keeps_the_largest_possible_sum(text):
    pattern = Pattern(text)
    x = torch.rand(200, 16, generator=torch.Generator().manual_seed(3))
    sets = torch.arange(1 << 16)[fitting_sets(extra_windows(pattern))]
    members = ((sets[:, None] >> torch.arange(16)) & 1).float()
    best = (x @ members.t()).amax(-1)
    for mask in (reference.nm_mask(x, pattern), amber_ext.nm_mask(x, text, backend="cpu")):
        assert torch.allclose((x * mask).sum(-1), best)


@pytest.mark.parametrize("in_features", [16, 48, 512, 576, 1536])
@pytest.mark.parametrize("text", [*WINDOWED, "2:4"])
def test_widened_weights(text, in_features):
    weight = torch.randn(5, in_features)
    wide = widen_weight(weight, text)
    assert wide.shape[1] == widened_features(in_features, Pattern(text)) and wide.is_contiguous()
    assert torch.equal(wide[:, :in_features], weight)
    extra = extra_windows(Pattern(text))
    if extra:
        assert wide.shape[1] % 128 == 0
        padded = F.pad(weight, (0, wide.shape[1] * 4 // (4 + extra) - in_features))
        for column in range(padded.shape[1], wide.shape[1]):
            group, place = divmod(column - padded.shape[1], 4 * extra)
            source = 16 * group + 4 * (place % 4) + (3, 2)[place // 4]
            assert torch.equal(wide[:, column], padded[:, source])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8, torch.float8_e4m3fn])
def test_widened_weights_of_any_dtype(dtype):
    weight = torch.randint(-8, 9, (5, 48)).to(dtype)
    wide = widen_weight(weight, "12:16w")
    assert wide.dtype == dtype
    assert torch.equal(wide.float(), widen_weight(weight.float(), "12:16w"))


def test_widen_weight_refuses():
    with pytest.raises(ValueError, match="pattern: '10:16' does not run on 2:4 hardware; allowed: '2:4', "):
        widen_weight(torch.ones(4, 16), "10:16")
    for bad in (torch.ones(4, 24), torch.ones(16)):
        with pytest.raises(ValueError, match=r"weight: shape .* K a multiple of 16"):
            widen_weight(bad, "8:16")


def compressed_and_back(x, mask, extra, layout):
    """x [T, K] of 16-bit values as the sparse GEMM sees it: [T, K']."""
    wide, wide_mask = torch.ops.amber.widen(x, mask, extra)
    values, metadata = torch.ops.amber.compress_2_4(wide, wide_mask, layout)
    assert values.shape[1] * 2 == wide.shape[1]
    return torch.ops.amber.decompress_2_4(values, metadata, layout)


@pytest.mark.parametrize("layout", ["sm80", "sm90"])
@pytest.mark.parametrize("text", [*WINDOWED, "2:4"])
def test_the_compressed_product_is_the_masked_dense_one(text, layout):
    torch.manual_seed(0)
    extra = extra_windows(Pattern(text))
    x = torch.randint(-8, 9, (37, 576)).bfloat16()
    weight = torch.randint(-8, 9, (24, 576)).bfloat16()
    scale = torch.rand(576) + 0.1
    mask = amber_ext.nm_mask(x, text, scale, backend="cpu")
    wide_x, wide_weight = compressed_and_back(x, mask, extra, layout), widen_weight(weight, text)
    # Small integers: every product and sum is exact.
    want = (x * mask).long() @ weight.long().t()
    assert torch.equal(wide_x.long() @ wide_weight.long().t(), want)

    x, weight = torch.randn(37, 576).bfloat16(), torch.randn(24, 576).bfloat16()
    mask = amber_ext.nm_mask(x, text, scale, backend="cpu")
    wide_x = compressed_and_back(x, mask, extra, layout)
    got = F.linear(wide_x.float(), widen_weight(weight, text).float()).bfloat16()
    want = amber_ext.linear(x, weight, pattern=text, scale=scale, backend="cpu")
    bound = F.linear(x.float().abs(), weight.float().abs()) * 576 * 2**-23
    assert ((got.float() - want.float()).abs() <= bound + want.float().abs() * 2**-7).all()


def test_unused_slots_are_zero_and_minus_zero_survives():
    x = torch.full((1, 16), -0.0).bfloat16()
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[0, [3, 5, 6, 7]] = True
    back = compressed_and_back(x, mask, 2, "sm90").view(torch.int16)
    assert (back == -(2**15)).sum() == 4 and (back == 0).sum() == back.numel() - 4


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("text", WINDOWED)
def test_linear_takes_either_weight(text, backend):
    x, weight, bias = torch.randn(3, 96), torch.randn(8, 96), torch.randn(8)
    want = amber_ext.linear(x, weight, bias, pattern=text, backend=backend)
    got = amber_ext.linear(x, widen_weight(weight, text), bias, pattern=text, backend=backend)
    torch.testing.assert_close(got, want)
    with pytest.raises(
        ValueError, match=r"weight: shape \[8, 97\] .* K = 96, or \[N, \d+\] from widen_weight"
    ):
        amber_ext.linear(x, torch.randn(8, 97), pattern=text, backend=backend)
    values, weight_scale = amber_ext.quantize_weight(weight)
    want = amber_ext.linear_w8a8(x, values, weight_scale, bias, pattern=text, backend=backend)
    got = amber_ext.linear_w8a8(
        x, widen_weight(values, text), weight_scale, bias, pattern=text, backend=backend
    )
    assert torch.equal(got, want)
