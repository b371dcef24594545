"""The registered operators themselves: schemas, fakes, their own argument checks, no backward."""

import pytest
import torch

import amber_ext  # registers the operators
from amber_ext import widen_weight
from amber_ext.ops import dense_products

needs_scaled_product = pytest.mark.skipif(
    not dense_products.CPU_HAS_SCALED_PRODUCT, reason="this CPU runs torch's int8 product"
)
X = torch.randn(3, 5, 32)
W, B, C = torch.randn(7, 32), torch.randn(7), torch.rand(32) + 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "op, arguments",
    [
        ("nm_mask", lambda d: (X.to(d), C, "2:4")),
        ("nm_mask", lambda d: (X.to(d).transpose(0, 1), None, "4:8")),
        ("nm_prune", lambda d: (X.to(d), C, "8:16", "none")),
        ("nm_prune", lambda d: (X.to(d), C, "10:16w", "none")),
        ("nm_prune", lambda d: (X.to(d).transpose(0, 1), None, "2:4", "variance")),
        ("linear", lambda d: (X.to(d), W.to(d), B.to(d), C, "2:4", "none", ["masked_dense"], [])),
        ("linear", lambda d: (X.to(d)[0, 0], W.to(d), None, None, "4:8", "variance", ["masked_dense"], [])),
        ("linear", lambda d: (X.to(d)[:0], W.to(d), B.to(d), C, "2:4", "none", ["masked_dense"], [])),
        (
            "linear_w8a8",
            lambda d: (
                X.to(d),
                W.char(),
                C[:7],
                None,
                None,
                C,
                "2:4",
                "none",
                ["dense", "masked_dense"],
                [9],
            ),
        ),
        pytest.param(
            "scaled_product",
            lambda d: (X[0].char(), C[:5], W.char(), C[:7], B.to(d), str(d)[6:]),
            marks=needs_scaled_product,
        ),
        ("current_scale", lambda d: (W.to(d), None, None, "wanda", "2:4")),
        ("current_scale", lambda d: (W.to(d), None, widen_weight(W.to(d), "8:16"), None, "8:16")),
    ],
)
def test_opcheck(op, arguments, dtype):
    torch.library.opcheck(getattr(torch.ops.amber, op).default, arguments(dtype))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda o: o.nm_mask(torch.ones(6), None, "2:4"), "K = 6 is not a multiple of M = 4"),
        (lambda o: o.nm_mask(torch.ones(6).int(), None, "2:4"), "dtype Int is not supported"),
        (lambda o: o.nm_mask(torch.ones(64), None, "2:64"), "pattern: '2:64' is not allowed"),
        (lambda o: o.nm_mask(torch.ones(4), None, "-1:4"), "pattern: '-1:4' is not allowed"),
        (lambda o: o.nm_mask(torch.ones(4), None, "2:8589934592"), "is not allowed"),
        (lambda o: o.nm_mask(torch.ones(16), None, "8:16w"), "pattern: '8:16w' is not allowed"),
        (lambda o: o.nm_mask(torch.ones(16), None, "10:16wx"), "pattern: '10:16wx' is not allowed"),
        (lambda o: o.nm_mask(torch.ones(16), None, "10"), "pattern: '10' is not allowed"),
        (lambda o: o.nm_mask(torch.ones(4), torch.ones(5), "2:4"), r"scale: shape \[5\]"),
        (lambda o: o.nm_mask(torch.ones(4), torch.ones(4).double(), "2:4"), "scale: dtype Double"),
        (lambda o: o.nm_prune(torch.ones(4), None, "2:4", "max"), "rescale: 'max' is not known"),
        (
            lambda o: o.linear(X, W[:, :16], None, None, "2:4", "none", ["masked_dense"], []),
            r"weight: shape \[7, 16\]",
        ),
        (
            lambda o: o.linear(X, W.half(), None, None, "2:4", "none", ["masked_dense"], []),
            "weight: dtype Half differs",
        ),
        (
            lambda o: o.linear(X, W, None, None, "2:4", "none", ["sparse_gemm"], []),
            "kernels: 'sparse_gemm' does not run on the CPU; allowed: 'masked_dense', 'dense'",
        ),
        (
            lambda o: o.scaled_product(X[0], C[:5], W.char(), C[:7], None, "float32"),
            r"values: \[5, 32\] of Float is not allowed; it must be \[T, K\] of int8",
        ),
        (
            lambda o: o.scaled_product(X[0].char(), C[:5], W.char()[:, 1:], C[:7], None, "float32"),
            r"weight: shape \[7, 31\] does not match values; allowed: \[N, 32\]",
        ),
        (
            lambda o: o.scaled_product(X[0].char(), C[:4], W.char(), C[:7], None, "float32"),
            r"token_scale: shape \[4\]",
        ),
        (
            lambda o: o.scaled_product(X[0].char(), C[:5], W.char(), C[:6], None, "float32"),
            r"weight_scale: shape \[6\]",
        ),
        (
            lambda o: o.scaled_product(X[0].char(), C[:5], W.char(), C[:7], B.half(), "float32"),
            r"bias: \[7\] of Half is not allowed; it must be \[7\] of Float",
        ),
        (
            lambda o: o.scaled_product(X[0].char(), C[:5], W.char(), C[:7], None, "int8"),
            "dtype: 'int8' is not known",
        ),
        (lambda o: o.linear(X, W, B[:3], None, "2:4", "none", ["masked_dense"], []), r"bias: shape \[3\]"),
    ],
)
def test_the_ops_check_their_own_arguments(call, message):
    with pytest.raises(RuntimeError, match=message):
        call(torch.ops.amber)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_backward_raises(backend):
    x = X.clone().requires_grad_()
    outputs = [
        amber_ext.nm_prune(x, "2:4", backend=backend),
        amber_ext.linear(x, W, pattern="2:4", backend=backend),
        amber_ext.linear(X, W.clone().requires_grad_(), pattern="2:4", backend=backend),
    ]
    for output in outputs:
        assert output.requires_grad
        with pytest.raises(RuntimeError, match="backward through an N:M pruned layer is not supported"):
            output.sum().backward()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_differentiation_says_why_it_does_not_work(backend):
    x, weight = torch.randn(3, 16), torch.randn(8, 16)
    values, scales = amber_ext.quantize_weight(weight)
    functions = (
        lambda x: amber_ext.nm_prune(x, "2:4", backend=backend),
        lambda x: amber_ext.linear(x, weight, pattern="2:4", backend=backend),
        lambda x: amber_ext.quantize_activations(x, "2:4", backend=backend)[1],
        lambda x: amber_ext.linear_w8a8(x, values, scales, pattern="2:4", backend=backend),
    )
    for function in functions:
        with pytest.raises(RuntimeError, match="forward-mode differentiation .* is not supported"):
            torch.func.jvp(function, (x,), (torch.ones_like(x),))
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            with pytest.raises(RuntimeError, match="forward-mode differentiation"):
                function(dual)
            function(x)  # no tangent, nothing to refuse
    with pytest.raises(RuntimeError, match="forward-mode differentiation"):  # of the weight
        torch.func.jvp(
            lambda w: amber_ext.linear(x, w, pattern="2:4", backend=backend),
            (weight,),
            (torch.ones_like(weight),),
        )


def test_ops_take_no_mixture_with_the_meta_device():
    """torch would run their fakes, which return memory as it was."""
    ops, x = torch.ops.amber, torch.randn(3, 16)
    ones, product = torch.ones, torch.ones(3, 8, dtype=torch.int32)
    calls = (
        (ops.nm_mask, {"x": x, "scale": ones(16)}, ("2:4",)),
        (ops.nm_prune, {"x": x, "scale": ones(16)}, ("2:4", "none")),
        (
            ops.linear,
            {"x": x, "weight": ones(8, 16), "bias": ones(8), "scale": ones(16)},
            ("2:4", "none", ["masked_dense"], []),
        ),
        (ops.quantize_activations, {"x": x, "smooth": ones(16), "scale": ones(16)}, ("2:4", "none", "int8")),
        (
            ops.dequantize,
            {"product": product, "token_scale": ones(3), "weight_scale": ones(8), "bias": ones(8)},
            ("float32",),
        ),
    )
    if dense_products.CPU_HAS_SCALED_PRODUCT:
        tensors = {"values": x.char(), "token_scale": ones(3), "weight": ones(8, 16).char()}
        tensors |= {"weight_scale": ones(8), "bias": ones(8)}
        calls += ((ops.scaled_product, tensors, ("float32",)),)
    for op, tensors, rest in calls:
        op(*tensors.values(), *rest)
        for name in tensors:
            mixed = {key: value.to("meta") if key == name else value for key, value in tensors.items()}
            with pytest.raises(RuntimeError, match="it is on (meta|cpu) but must be on (meta|cpu)"):
                op(*mixed.values(), *rest)
        everything = op(*(value.to("meta") for value in tensors.values()), *rest)
        assert all(y.is_meta for y in (everything if isinstance(everything, tuple) else (everything,)))
