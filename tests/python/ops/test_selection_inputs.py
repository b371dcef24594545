"""What nm_mask and nm_prune make of degenerate, strided and bad input."""

import pytest
import torch

import amber_ext
from amber_ext import Pattern
from amber_ext.ops import reference


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


@pytest.fixture
def flushes():
    """A thread that takes subnormal numbers for 0."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU does not flush subnormal numbers")
    yield
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("text", ["2:4", "3:5", "8:16", "10:16w"])
def test_subnormal_numbers_count_where_the_thread_flushes_them(flushes, text, backend):
    numbers = torch.arange(1, 81, dtype=torch.int32)
    want = reference.nm_mask(numbers.float(), Pattern(text))
    units = torch.ones(80, dtype=torch.int32).view(torch.float32)  # 2**-149
    for x, scale in (
        (numbers.view(torch.float32), None),
        (numbers.to(torch.int16).view(torch.bfloat16), None),
        (numbers * 2.0**-120, torch.full((80,), 2.0**-25)),  # subnormal scores of numbers that are not
        (numbers.float(), units),
    ):
        assert torch.equal(amber_ext.nm_mask(x, text, scale, backend=backend), want)
        bits = torch.int32 if x.dtype == torch.float32 else torch.int16
        pruned = amber_ext.nm_prune(x, text, scale, backend=backend)
        assert torch.equal(pruned.view(bits), x.view(bits) * want)


@pytest.mark.parametrize("backend", ["cpu", "reference", "auto"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bad_factor_is_one_error_under_every_backend(value, backend):
    x, bad = torch.ones(2, 8), torch.ones(8)
    bad[3] = value
    weight = torch.ones(4, 8)
    values, scales = amber_ext.quantize_weight(weight)
    calls = {
        "scale": (
            lambda: amber_ext.nm_mask(x, "2:4", bad, backend=backend),
            lambda: amber_ext.nm_prune(x, "2:4", bad, backend=backend),
            lambda: amber_ext.linear(x, weight, pattern="2:4", scale=bad, backend=backend),
            lambda: amber_ext.quantize_activations(x, "2:4", scale=bad, backend=backend),
            lambda: amber_ext.linear_w8a8(x, values, scales, pattern="2:4", scale=bad, backend=backend),
        ),
        "smooth": (
            lambda: amber_ext.quantize_activations(x, "2:4", smooth=bad, backend=backend),
            lambda: amber_ext.linear_w8a8(x, values, scales, smooth=bad, backend=backend),
        ),
    }
    for name, function in ((name, function) for name, functions in calls.items() for function in functions):
        with pytest.raises(
            ValueError, match=f"^{name}: element 3 is {value:g}; every element must be finite"
        ):
            function()
