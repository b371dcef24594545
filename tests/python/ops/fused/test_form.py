"""Compressed forms: their shapes in every layout, and the product that reads them."""

from types import SimpleNamespace

import pytest
import torch

import amber_ext
from amber_ext import quantize_weight, widen_weight
from amber_ext.ops.choice.plan import Plan
from amber_ext.ops.fused import form as form_module
from amber_ext.ops.fused.form import layout_for
from amber_ext.ops.fused.product import sparse_linear_compressed
from amber_ext.ops.fused.silu_mul import silu_mul_linear, silu_mul_prune

CPU = Plan("cpu")
TOKENS = (1, 63, 64, 65, 300)


@pytest.mark.parametrize("layout", ["sm80", "sm90"])
@pytest.mark.parametrize("tokens", TOKENS)
def test_16_bit_shapes_are_those_of_the_compressor(tokens, layout):
    x = torch.ones(tokens, 256).bfloat16()
    values, metadata = torch.ops.amber.compress_2_4(x, amber_ext.nm_mask(x, "2:4"), layout)
    gate = x.to("meta")
    form = torch.ops.amber.silu_mul_prune(gate, gate, None, None, "2:4", "none", "bfloat16", layout)
    rows = -(-tokens // 32) * 32 if layout == "sm80" else tokens
    assert form[0].shape == (rows, values.shape[1]) and form[0].dtype == x.dtype
    assert form[1].shape == metadata.shape and form[1].dtype == torch.uint8
    assert form[2].shape == (0,)


@pytest.mark.parametrize(
    "pattern, layout, values, metadata",
    [
        # K = 288 has 288, 10/16 of 512 * 5/4 and of 512 * 6/4 columns; E one bit for each, of whole tiles.
        ("2:4", "sm90", (65, 144), 128 * 384 // 8),
        ("2:4", "sm80", (96, 144), 96 * 320 // 8),
        ("10:16w", "sm90", (65, 320), 128 * 640 // 8),
        ("12:16w", "sm80", (96, 384), 96 * 768 // 8),
    ],
)
def test_8_bit_shapes(pattern, layout, values, metadata):
    gate = torch.empty(5, 13, 288, dtype=torch.bfloat16, device="meta")
    form = torch.ops.amber.silu_mul_prune(gate, gate, None, None, pattern, "none", "int8", layout)
    assert [tuple(part.shape) for part in form] == [values, (metadata,), (values[0],)]
    weight = torch.empty(24, 2 * values[1], dtype=torch.int8, device="meta")
    y = torch.ops.amber.sparse_linear_compressed(
        *form, weight, torch.empty(24, device="meta"), None, pattern, "bfloat16", layout, ["kernel"], []
    )
    assert y.shape == (values[0], 24) and y.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_those_of_the_separate_functions(dtype, bias):
    gate, up = torch.randn(2, 33, 64).to(dtype), torch.randn(2, 33, 64).to(dtype)
    x = torch.nn.functional.silu(gate) * up
    weight, b = torch.randn(24, 64).to(dtype), torch.randn(24).to(dtype) if bias else None
    scale, smooth = torch.rand(64) + 0.5, torch.rand(64) + 0.5
    how = {"pattern": amber_ext.Pattern("8:16"), "scale": scale, "rescale": "variance"}
    more = {"backend": "auto", "allow_unpruned": False, "plan": None}
    for columns in (weight, widen_weight(weight, "8:16")):
        y = silu_mul_linear(gate, up, weight=columns, bias=b, **how, **more)
        assert torch.equal(y, amber_ext.linear(x, weight, b, **how))
    values, weight_scale = quantize_weight(weight)
    how |= {"smooth": smooth}
    y = silu_mul_linear(gate, up, weight=values, weight_scale=weight_scale, bias=b, **how, **more)
    assert torch.equal(y, amber_ext.linear_w8a8(x, values, weight_scale, b, **how))


@pytest.mark.parametrize("rows", [0, 6])
def test_opcheck(rows):
    gate = torch.randn(rows, 32)
    weight, bias = torch.randn(8, 32), torch.randn(8)
    values, weight_scale = quantize_weight(weight)
    for form, arguments in (
        (silu_mul_prune(gate, gate, "2:4"), (weight, None, bias)),
        (silu_mul_prune(gate, gate, "2:4", dtype="int8"), (values, weight_scale, bias)),
    ):
        rest = ("2:4", "float32", "dense", ["masked_dense"], [])
        op = torch.ops.amber.sparse_linear_compressed.default
        torch.library.opcheck(op, (*form[:3], *arguments, *rest))


def test_a_form_is_checked():
    form = silu_mul_prune(torch.ones(6, 32), torch.ones(6, 32), "2:4", dtype="int8")
    weight, weight_scale = quantize_weight(torch.ones(8, 32))
    byte, scales = torch.zeros(1, dtype=torch.uint8), torch.ones(5)
    plan = Plan("cpu", kernels=("masked_dense", "sparse"), thresholds=(9,))
    for wrong, options, error, message in (
        (form._replace(layout="sm90"), {}, RuntimeError, "layout: 'sm90' does not run on the CPU"),
        (
            form,
            {"plan": plan},
            RuntimeError,
            r"kernels: \['masked_dense', 'sparse'\] do not read layout 'dense'",
        ),
        (
            form,
            {"weight": weight.float()},
            RuntimeError,
            r"values: torch.int8 \[6, 32\] does not match weight",
        ),
        (form, {"weight_scale": None}, RuntimeError, "8-bit ones alone have scales"),
        (form._replace(metadata=byte), {}, RuntimeError, r"metadata: shape \[1\] is not that of a form"),
        (form._replace(token_scale=scales), {}, RuntimeError, r"token_scale: shape \[5\] .* allowed: \[6\]"),
        (form, {"weight": weight[:, :16]}, ValueError, r"weight: shape \[8, 16\] does not match x"),
    ):
        arguments = {"weight": weight, "weight_scale": weight_scale, "dtype": torch.float32, "plan": CPU}
        with pytest.raises(error, match=message):
            sparse_linear_compressed(wrong, **{**arguments, **options})


def test_e4m3_has_no_product_on_the_cpu():
    form = silu_mul_prune(torch.ones(6, 32), torch.ones(6, 32), "2:4", dtype="e4m3")
    weight, weight_scale = quantize_weight(torch.ones(8, 32), "e4m3")
    with pytest.raises(RuntimeError, match="torch has no e4m3 product on the CPU"):
        sparse_linear_compressed(form, weight, None, weight_scale, dtype=torch.float32, plan=CPU)


def test_where_a_plan_takes_forms(monkeypatch):
    gemms = [SimpleNamespace(name=f"sm{arch}_some_gemm", arch=arch) for arch in (80, 89, 90, 100)]
    monkeypatch.setattr(form_module, "SPARSE_GEMMS", gemms)
    assert layout_for(CPU, 5) == "dense" and layout_for(Plan("reference"), 5) is None
    assert layout_for(Plan("cuda"), 9000) is None
    read = {gemm.arch: layout_for(Plan("cuda", kernels=(gemm.name,)), 1) for gemm in gemms}
    assert read == {80: "sm80", 89: "sm80", 90: "sm90", 100: None}
    sparse = "sm90_some_gemm@N8"
    steps = Plan("cuda", kernels=("masked_dense", sparse, "dense", sparse), thresholds=(8, 64, 512))
    assert [layout_for(steps, tokens) for tokens in (1, 8, 64, 511, 512, 9000)] == [None] * 4 + ["sm90"] * 2
    ends_dense = Plan("cuda", kernels=(sparse, "dense"), thresholds=(64,))
    assert layout_for(ends_dense, 1) is None and layout_for(ends_dense, 100) is None
