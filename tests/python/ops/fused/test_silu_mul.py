"""silu(gate) * up, pruned as it is made: bit for bit what the separate functions do."""

import pytest
import torch
import torch.nn.functional as F
from inputs import awkward, positive

import amber_ext
from amber_ext.ops.fused.silu_mul import silu_mul_prune

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
K = 400  # a multiple of every M below, and no multiple of a vector of 32


def gated(tokens, dtype, seed=0):
    return awkward((tokens, K), dtype, seed), awkward((tokens, K), dtype, seed + 1)


def separately(gate, up, pattern, rescale, dtype, scale, smooth):
    x = F.silu(gate) * up
    if dtype is None:
        return amber_ext.nm_prune(x, pattern, scale, rescale), None
    return amber_ext.quantize_activations(
        x, pattern, scale=scale, smooth=smooth, rescale=rescale, dtype=dtype
    )


def equal(a, b):
    """NaNs are equal whatever their payload, zeros by their sign."""
    a, b = a.float(), b.float()
    same = (a == b) & (a.signbit() == b.signbit()) | a.isnan() & b.isnan()
    return a.shape == b.shape and bool(same.all())


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("values", [None, "int8", "e4m3"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_form_is_that_of_the_separate_functions(dtype, values, backend):
    scale, smooth = positive(K), None if values is None else positive(K)
    for tokens, pattern, rescale in (
        (1, "2:4", "none"),
        (63, "4:8", "variance"),
        (64, "8:16", "none"),
        (65, "10:16w", "variance"),
        (300, "12:16w", "none"),
        (300, "2:4", "variance"),
        (9, "3:5", "none"),
        (9, "1:1", "none"),
        (0, "2:4", "none"),
    ):
        gate, up = gated(tokens, dtype)
        how = {"scale": scale, "smooth": smooth, "rescale": rescale, "dtype": values}
        form = silu_mul_prune(gate, up, pattern, **how, backend=backend)
        want, want_scale = separately(gate, up, pattern, rescale, values, scale, smooth)
        assert form.values.dtype == want.dtype and equal(form.values, want)
        assert form.metadata.shape == (0,) and form.layout == "dense"
        if values is None:
            assert form.token_scale.shape == (0,)
        else:
            assert equal(form.token_scale, want_scale)


def test_the_largest_survivor_sets_the_scale():
    gate, up = torch.full((1, 4), 30.0), torch.tensor([[1.0, 2.0, 127.0, 254.0]])
    form = silu_mul_prune(gate, up, "2:4", scale=torch.tensor([1.0, 1.0, 1.0, 1e-6]), dtype="int8")
    assert form.values.tolist() == [[0, 2, 127, 0]]  # 254 is dropped, so it is not what 127 stands for
    assert form.token_scale.tolist() == [30.0]


@pytest.mark.parametrize("values", [None, "int8"])
def test_slices_and_leading_dimensions(values):
    merged = torch.randn(3, 5, 2 * K).bfloat16()
    gate, up = merged.chunk(2, dim=-1)
    form = silu_mul_prune(gate, up, "2:4", dtype=values)
    want, _ = separately(gate, up, "2:4", "none", values, None, None)
    assert form.values.shape == (15, K) and equal(form.values, want.view(15, K))


def test_threads_that_flush_subnormal_numbers_agree_with_the_separate_functions():
    gate, up = torch.full((4, K), 1e-20), torch.full((4, K), 1e-19) * positive(K)
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush subnormal numbers")
    try:
        form = silu_mul_prune(gate, up, "2:4")
        want, _ = separately(gate, up, "2:4", "none", None, None, None)
    finally:
        torch.set_flush_denormal(False)
    assert equal(form.values, want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opcheck(dtype):
    gate, up = torch.randn(6, K).to(dtype), torch.randn(6, K).to(dtype)
    name = str(dtype).removeprefix("torch.")
    for arguments in (
        (gate, up, None, positive(K), "2:4", "variance", name, "dense"),
        (gate.view(2, 3, K), up.view(2, 3, K), positive(K), None, "8:16", "none", "int8", "dense"),
        (gate[:0], up[:0], None, None, "10:16w", "none", "int8", "dense"),
    ):
        torch.library.opcheck(torch.ops.amber.silu_mul_prune.default, arguments)


X = torch.ones(2, 8)


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        ((X.int(), X, "2:4"), {}, TypeError, "gate: dtype torch.int32 is not supported"),
        ((X, X, "2:5"), {}, ValueError, "gate: its last dimension K = 8 is not a multiple of M = 5"),
        ((X, X[:1], "2:4"), {}, ValueError, r"up: torch.float32 \[1, 8\] on cpu does not match gate"),
        ((X, X.half(), "2:4"), {}, ValueError, r"up: torch.float16 \[2, 8\] on cpu does not match"),
        ((X, X, "2:4"), {"smooth": X[0]}, ValueError, "smooth: it is for dtype 'int8' and 'e4m3'"),
        ((X, X, "2:4"), {"dtype": "int4"}, ValueError, "dtype: 'int4' is not known"),
        ((X, X, "2:4"), {"scale": -X[0]}, ValueError, "scale: element 0 is -1"),
        ((X, X, "2:4"), {"layout": "sm70"}, ValueError, "layout: 'sm70' is not known"),
        ((X, X, "2:4"), {"layout": "sm90"}, RuntimeError, "layout: 'sm90' does not run on the CPU; allowed"),
        (
            (X, X, "2:4"),
            {"layout": "sm90", "backend": "reference"},
            RuntimeError,
            "layout: 'sm90' does not run on the reference; allowed: 'dense'",
        ),
    ],
)
def test_refusals(arguments, options, error, message):
    with pytest.raises(error, match=message):
        silu_mul_prune(*arguments, **options)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((X.int(), X.int(), None, None, "2:4", "none", "int8", "dense"), "gate: dtype Int is not supported"),
        ((X, X[:1], None, None, "2:4", "none", "int8", "dense"), r"up: Float \[1, 8\] does not match gate"),
        (
            (X, X, None, None, "2:4", "none", "float16", "dense"),
            "dtype: 'float16' is not allowed; it must be 'float32'",
        ),
        ((X, X, X[0], None, "2:4", "none", "float32", "dense"), "smooth: it is for dtype 'int8'"),
        ((X, X, None, None, "2:4", "max", "int8", "dense"), "rescale: 'max' is not known"),
        ((X, X, None, None, "2:4", "none", "int8", "sm80"), "layout: 'sm80' does not run on the CPU"),
    ],
)
def test_the_op_checks_its_own_arguments(arguments, message):
    with pytest.raises(RuntimeError, match=message):
        torch.ops.amber.silu_mul_prune(*arguments)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_no_differentiation(backend):
    gate = X.clone().requires_grad_()
    form = silu_mul_prune(gate, X, "2:4", backend=backend)
    with pytest.raises(RuntimeError, match="backward through an N:M pruned layer is not supported"):
        form.values.sum().backward()
    with pytest.raises(RuntimeError, match="forward-mode differentiation"):
        torch.func.jvp(lambda x: silu_mul_prune(x, X, "2:4", backend=backend).values, (X,), (X,))
