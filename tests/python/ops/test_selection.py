"""nm_mask and nm_prune: the op against the reference, the reference against a sort in numpy."""

from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import amber_ext
from amber_ext import Pattern
from amber_ext.ops import reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
PATTERNS = ["2:4", "4:8", "8:16", "1:2", "1:4", "3:4", "16:32", "10:16", "3:5", "7:30", "1:1", "4:4", "1:32"]
WINDOWED = ["10:16w", "12:16w"]


def awkward(shape, dtype, seed=0):
    """Numbers mixed with NaN, Inf, ±0, ties and tiny values."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    specials = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, -1.0, 1e-7, 65504.0])
    pick = torch.randint(0, 2 * len(specials), x.shape, generator=generator)
    x = torch.where(pick < len(specials), specials[pick % len(specials)], x)
    return x.to(dtype)


@cache
def sets_that_fit(n):
    """All unions of at most two columns from each window, as bit masks."""
    windows = [range(q, q + 4) for q in (0, 4, 8, 12)] + [
        range(c, 16, 4) for c in ((3,) if n == 10 else (3, 2))
    ]
    sets = {0}
    for window in windows:
        choices = [sum(1 << c for c in chosen) for size in range(3) for chosen in combinations(window, size)]
        sets = {s | choice for s in sets for choice in choices if not s & choice}
    return frozenset(sets)


def sorted_mask(x, pattern, scale=None):
    """By a stable sort per group, in numpy and fp32."""
    score = np.abs(x.float().numpy())
    if scale is not None:
        score = score * scale.numpy()
    groups = score.reshape(-1, pattern.m)
    # NaN first, then by descending score; a stable sort keeps the lower index on ties.
    descending = np.where(np.isnan(groups), -np.inf, -groups)
    order = np.lexsort(
        (np.arange(pattern.m)[None].repeat(len(groups), 0), descending, ~np.isnan(groups)), axis=1
    )
    mask = np.zeros(groups.shape, bool)
    if pattern.windowed:
        for row, columns in enumerate(order.tolist()):
            kept = 0
            for column in columns:
                if kept | 1 << column in sets_that_fit(pattern.n):
                    kept |= 1 << column
                    mask[row, column] = True
    else:
        np.put_along_axis(mask, order[:, : pattern.n], True, 1)
    return torch.from_numpy(mask.reshape(score.shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("text", PATTERNS + WINDOWED)
def test_mask_op_reference_and_sort_agree(text, dtype):
    pattern = Pattern(text)
    for groups in (1, 2, 7, 33):
        x = awkward((6, groups * pattern.m), dtype, seed=groups)
        scale = torch.rand(x.shape[-1], generator=torch.Generator().manual_seed(groups)) + 0.1
        for c in (None, scale):
            expected = sorted_mask(x, pattern, c)
            assert torch.equal(reference.nm_mask(x, pattern, c), expected)
            assert torch.equal(amber_ext.nm_mask(x, text, c, backend="cpu"), expected)


@settings(max_examples=200, deadline=None)
@given(
    m=st.integers(1, 32),
    data=st.data(),
    dtype=st.sampled_from(DTYPES),
    lead=st.lists(st.integers(0, 4), max_size=3),
    groups=st.integers(0, 5),
    seed=st.integers(0, 2**31),
)
def test_any_pattern_and_shape(m, data, dtype, lead, groups, seed):
    pattern = Pattern(f"{data.draw(st.integers(1, m))}:{m}")
    x = awkward((*lead, groups * m), dtype, seed)
    mask = amber_ext.nm_mask(x, pattern, backend="cpu")
    assert mask.shape == x.shape and mask.dtype == torch.bool
    assert torch.equal(mask, reference.nm_mask(x, pattern))
    assert (mask.unflatten(-1, (groups, m)).sum(-1) == pattern.n).all()


@settings(max_examples=50, deadline=None)
@given(
    text=st.sampled_from(WINDOWED),
    dtype=st.sampled_from(DTYPES),
    lead=st.lists(st.integers(0, 4), max_size=3),
    groups=st.integers(0, 40),
    seed=st.integers(0, 2**31),
)
def test_windowed_patterns_and_shapes(text, dtype, lead, groups, seed):
    x = awkward((*lead, groups * 16), dtype, seed)
    mask = amber_ext.nm_mask(x, text, backend="cpu")
    assert mask.shape == x.shape
    assert torch.equal(mask, reference.nm_mask(x, Pattern(text)))
    assert (mask.unflatten(-1, (groups, 16)).sum(-1) == Pattern(text).n).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rescale", ["none", "variance"])
@pytest.mark.parametrize("text", ["2:4", "4:8", "8:16", "3:5", "16:32", *WINDOWED])
def test_prune_op_equals_reference(text, dtype, rescale):
    pattern = Pattern(text)
    x = torch.randn(9, pattern.m * 21, generator=torch.Generator().manual_seed(1)).to(dtype) * 3 + 0.5
    scale = torch.rand(x.shape[-1]) + 0.1
    got = amber_ext.nm_prune(x, text, scale, rescale, backend="cpu")
    want = reference.nm_prune(x, pattern, scale, rescale)
    # The variances are summed in another order, in fp64: at most the last bit of a product differs.
    assert torch.allclose(got.float(), want.float(), rtol=torch.finfo(dtype).eps, atol=0)
    assert torch.equal(got != 0, want != 0)
    if rescale == "none":
        assert torch.equal(got, want)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_rescale_restores_the_variance(backend):
    x = torch.randn(5, 512, dtype=torch.float32)
    pruned = amber_ext.nm_prune(x, "2:4", rescale="variance", backend=backend)
    assert torch.allclose(pruned.var(-1, correction=0), x.var(-1, correction=0), rtol=1e-5)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_rescale_of_degenerate_tokens_is_one(backend):
    x = torch.zeros(3, 8)
    x[1] = 1.0
    x[2, 0] = float("inf")
    pruned = amber_ext.nm_prune(x, "2:4", rescale="variance", backend=backend)
    assert torch.equal(pruned, amber_ext.nm_prune(x, "2:4", backend="reference"))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_dropped_entries_are_plus_zero(backend):
    x = torch.tensor([[-0.0, 5.0, -3.0, -0.0, -1.0, -2.0, -3.0, -4.0]])
    pruned = amber_ext.nm_prune(x, "2:4", backend=backend)
    assert pruned.tolist() == [[0.0, 5.0, -3.0, 0.0, 0.0, 0.0, -3.0, -4.0]]
    assert not pruned.signbit()[pruned == 0].any()
    # ... but a surviving -0 stays as it is.
    kept = amber_ext.nm_prune(torch.tensor([-0.0, 0.0, 0.0, 0.0]), "2:4", backend=backend)
    assert kept.signbit().tolist() == [True, False, False, False]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_bad_values_reach_the_output(backend):
    nan, inf = float("nan"), float("inf")
    x = torch.tensor([[1e30, nan, -inf, 2.0], [nan, nan, nan, 1.0], [inf, -inf, inf, 1.0]])
    mask = amber_ext.nm_mask(x, "2:4", backend=backend)
    assert mask.tolist() == [
        [False, True, True, False],
        [True, True, False, False],
        [True, True, False, False],
    ]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_non_contiguous_empty_and_huge(backend):
    base = torch.randn(12, 3, 16)
    for view in (base.transpose(0, 1), base[::2], base[..., ::2], base.permute(1, 0, 2)[1]):
        expected = reference.nm_mask(view.contiguous(), Pattern("2:4"))
        assert torch.equal(amber_ext.nm_mask(view, "2:4", backend=backend), expected)
    column_major = torch.randn(16, 8).t()
    pruned = amber_ext.nm_prune(column_major, "2:4", backend=backend)
    assert torch.equal(pruned, reference.nm_prune(column_major.contiguous(), Pattern("2:4")))
    scale = (torch.rand(32) + 0.1)[::2]
    assert torch.equal(
        amber_ext.nm_mask(base, "4:8", scale, backend=backend),
        reference.nm_mask(base, Pattern("4:8"), scale.contiguous()),
    )
    for shape in ((0, 8), (3, 0), (2, 0, 4), (0,)):
        assert amber_ext.nm_mask(torch.empty(shape), "2:4", backend=backend).shape == shape
        assert (
            amber_ext.nm_prune(torch.empty(shape), "2:4", rescale="variance", backend=backend).shape == shape
        )
    misaligned = torch.randn(1 + 8 * 64, dtype=torch.bfloat16)[1:].view(8, 64)
    assert torch.equal(
        amber_ext.nm_mask(misaligned, "8:16", backend=backend),
        reference.nm_mask(misaligned.clone(), Pattern("8:16")),
    )


def test_many_rows_use_every_thread_and_agree():
    x = torch.randn(4097, 4 * 128, dtype=torch.bfloat16)
    assert torch.equal(amber_ext.nm_mask(x, "2:4", backend="cpu"), reference.nm_mask(x, Pattern("2:4")))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: (torch.ones(3, 6), "2:4"), ValueError, "K = 6 is not a multiple of M = 4"),
        (lambda: (torch.tensor(1.0), "2:4"), ValueError, "0-dimensional"),
        (lambda: (torch.ones(4, dtype=torch.int8), "2:4"), TypeError, "torch.int8 is not supported"),
        (lambda: (torch.ones(4, dtype=torch.float64), "2:4"), TypeError, "torch.float64 is not supported"),
        (lambda: ([1.0, 2.0], "2:4"), TypeError, "list is not allowed"),
        (lambda: (torch.ones(4), "5:4"), ValueError, "'5:4' is not allowed"),
        (lambda: (torch.ones(4), "2:4", torch.ones(3)), ValueError, r"shape \[3\] .*\[K\] = \[4\]"),
        (lambda: (torch.ones(4), "2:4", torch.ones(1, 4)), ValueError, r"shape \[1, 4\]"),
        (lambda: (torch.ones(4), "2:4", torch.ones(4).half()), TypeError, "torch.float16 is not supported"),
    ],
)
def test_bad_input(make, error, message, backend):
    for function in (amber_ext.nm_mask, amber_ext.nm_prune):
        with pytest.raises(error, match=message) as caught:
            function(*make(), backend=backend)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("bad", [0.0, -0.0, -1.0, float("nan"), float("inf"), -float("inf")])
def test_bad_scale_values(bad, backend):
    scale = torch.ones(8)
    scale[5] = bad
    for function in (amber_ext.nm_mask, amber_ext.nm_prune):
        with pytest.raises(
            (ValueError, RuntimeError), match="element 5 is .* must be finite and > 0"
        ) as caught:
            function(torch.ones(2, 8), "2:4", scale, backend=backend)
        assert "\n" not in str(caught.value)


def test_bad_backend_and_rescale():
    with pytest.raises(
        ValueError, match="backend: 'gpu' is not known; allowed: 'auto', 'cpu', 'cuda', 'cutlass'"
    ):
        amber_ext.nm_mask(torch.ones(4), "2:4", backend="gpu")
    with pytest.raises(ValueError, match="rescale: 'std' is not known; allowed: 'none', 'variance'"):
        amber_ext.nm_prune(torch.ones(4), "2:4", rescale="std")


def test_an_explicit_backend_never_falls_back():
    with pytest.raises(RuntimeError, match="backend: 'cuda' cannot run here: x is on cpu"):
        amber_ext.nm_mask(torch.ones(4), "2:4", backend="cuda")
    with pytest.raises(RuntimeError, match="backend: 'cutlass' has no nm_mask; it runs linear alone"):
        amber_ext.nm_mask(torch.ones(4), "2:4", backend="cutlass")
    with pytest.raises(RuntimeError, match="backend: 'cutlass' cannot run here: x is on cpu"):
        amber_ext.linear(torch.ones(4), torch.ones(4, 4), pattern="2:4", backend="cutlass")
    with pytest.raises(RuntimeError, match="backend: 'cpu' cannot run here: x is on meta"):
        amber_ext.nm_mask(torch.ones(4, device="meta"), "2:4", backend="cpu")
    assert amber_ext.nm_mask(torch.ones(4, device="meta"), "2:4").is_meta


def test_host_core_compresses_what_nm_prune_keeps():
    from amber_ext import _introspect

    x = awkward((70, 256), torch.bfloat16)
    mask = amber_ext.nm_mask(x, "2:4")
    for layout in ("sm80", "sm90"):
        values, metadata = _introspect.compress_2_4(x.view(torch.uint16).numpy(), mask.numpy(), layout)
        assert values.shape == (70, 128)
        back = torch.from_numpy(_introspect.decompress_2_4(values, metadata, layout)).view(torch.bfloat16)
        want = amber_ext.nm_prune(x, "2:4")
        assert torch.equal(back.view(torch.int16), want.view(torch.int16))
    with pytest.raises(ValueError, match="'sm70' is not known; allowed: 'sm80', 'sm90'"):
        _introspect.compress_2_4(x.view(torch.uint16).numpy(), mask.numpy(), "sm70")
    with pytest.raises(ValueError, match="exactly 2 of every 4"):
        _introspect.compress_2_4(x.view(torch.uint16).numpy(), np.ones((70, 256), np.uint8), "sm80")
