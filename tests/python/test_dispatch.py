"""The choice of kernel for a GPU, made on fake CUDA tensors: it needs no GPU."""

import json

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from amber_ext import AmberLinear, Pattern, dispatch, dispatch_table, explain, ops
from amber_ext.dispatch_w8a8 import choose_w8a8

WIN = {
    "arch": 90,
    "pattern": "2:4",
    "dtype": "bfloat16",
    "min_out_features": 1024,
    "min_in_features": 2048,
    "min_tokens": 512,
    "kernel": "sm90_bf16_a",
    "speedup": 1.31,
    "source": "test.json",
}


@pytest.fixture
def table(monkeypatch, tmp_path):
    """A table of two classes, on a machine that looks like an H200 with a CUDA build."""
    larger = {**WIN, "min_out_features": 8192, "min_tokens": 128, "kernel": "sm90_bf16_b"}
    slow = {**WIN, "min_tokens": 1, "kernel": "dense", "speedup": 1.0}
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"measurements": [WIN, larger, slow]}))
    monkeypatch.setattr(dispatch_table, "TABLE", path)
    monkeypatch.setattr(ops, "DEVICES", frozenset({"cpu", "cuda"}))
    monkeypatch.setattr(ops, "SPARSE_GEMMS", frozenset({"sm90_bf16_a", "sm90_bf16_b"}))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    dispatch_table.measurements.cache_clear()
    yield
    dispatch_table.measurements.cache_clear()


def decide(tokens, n, k, pattern="2:4", dtype=torch.bfloat16, rescale="none", backend="auto"):
    with FakeTensorMode():
        x = torch.empty(2, tokens // 2, k, dtype=dtype, device="cuda")
        weight = torch.empty(n, k, dtype=dtype, device="cuda")
        return dispatch.choose_linear(x, weight, Pattern(pattern), rescale, backend)


def test_auto_takes_the_sparse_gemm_only_where_it_was_measured_to_win(table):
    won = decide(512, 1024, 2048)
    assert (won.backend, won.kernel) == ("cutlass", "sm90_bf16_a")
    assert "1.31x dense in test.json" in won.reason
    assert decide(128, 8192, 4096).kernel == "sm90_bf16_b"
    for decision in (decide(510, 1024, 2048), decide(126, 8192, 4096)):
        assert (decision.backend, decision.kernel) == ("dense", "dense")
        assert "dense was fastest in test.json" in decision.reason
    for decision in (
        decide(512, 512, 2048),
        decide(512, 1024, 1024),
        decide(512, 1028, 2048),
        decide(512, 1024, 2056),
        decide(512, 1024, 2048, pattern="4:8"),
        decide(512, 1024, 2048, dtype=torch.float16),
    ):
        assert decision.backend == "cuda" and decision.kernel == "masked_dense"
        assert "nothing was measured" in decision.reason
    assert "does not rescale" in decide(512, 1024, 2048, rescale="variance").reason


def write_table(tmp_path, *entries):
    (tmp_path / "table.json").write_text(json.dumps({"measurements": entries}))
    dispatch_table.measurements.cache_clear()


def decide_windowed(weight_cols, pattern="8:16", backend="auto"):
    with FakeTensorMode():
        x = torch.empty(1024, 2048, dtype=torch.bfloat16, device="cuda")
        weight = torch.empty(1024, weight_cols, dtype=torch.bfloat16, device="cuda")
        return dispatch.choose_linear(x, weight, Pattern(pattern), "none", backend)


def test_windowed_kernels_run_on_weights_with_copies(table, tmp_path):
    write_table(tmp_path, {**WIN, "pattern": "8:16"}, {**WIN, "pattern": "12:16w", "kernel": "masked_dense"})
    won = decide_windowed(3072)
    assert (won.backend, won.kernel) == ("cutlass", "sm90_bf16_a") and "1.31x dense" in won.reason
    plain = decide_windowed(2048)
    assert (plain.backend, plain.kernel) == ("cuda", "masked_dense") and "widen_weight" in plain.reason
    assert decide_windowed(3072, "12:16w").kernel == "masked_dense"
    assert "nothing was measured" in decide_windowed(2560, "10:16w").reason
    assert decide_windowed(2560, "10:16w", "cutlass").kernel == "sparse_gemm"
    with pytest.raises(ValueError, match=r"weight: shape \[1024, 2048\] has no copies for .* 10:16w"):
        decide_windowed(2048, "10:16w", "cutlass")


def test_layers_keep_copies_only_where_a_sparse_kernel_was_fastest(table, tmp_path):
    slow = {**WIN, "pattern": "12:16w", "kernel": "masked_dense"}
    write_table(tmp_path, {**WIN, "pattern": "8:16"}, slow, {**slow, "min_tokens": 9000, "kernel": "dense"})

    def wants(pattern, backend="auto", device="cuda", n=1024):
        with FakeTensorMode():
            weight = torch.empty(n, 2048, dtype=torch.bfloat16, device=device)
            return dispatch.wants_copies(weight, weight.dtype, Pattern(pattern), backend)

    assert wants("8:16") and wants("12:16w", "cutlass") and wants("4:8", "cutlass")
    assert not wants("12:16w") and not wants("4:8") and not wants("8:16", n=512)
    assert not wants("2:4", "cutlass") and not wants("10:16", "cutlass")
    assert not wants("8:16", "cuda") and not wants("8:16", "reference")
    assert not wants("8:16", "cutlass", device="cpu")


def test_another_arch_is_not_covered(table, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    assert decide(512, 1024, 2048).backend == "cuda"


def test_a_measured_kernel_that_was_not_built_is_not_taken(table, monkeypatch):
    monkeypatch.setattr(ops, "SPARSE_GEMMS", frozenset({"sm90_bf16_b"}))
    assert decide(512, 1024, 2048) == dispatch.Decision(
        "cuda", "masked dense: nothing was measured for this shape, GPU and build"
    )
    assert decide(512, 1024, 2048, backend="cutlass").kernel == "sparse_gemm"
    monkeypatch.setattr(ops, "SPARSE_GEMMS", None)
    assert decide(512, 1024, 2048).kernel == "sm90_bf16_a"


def test_explicit_backends(table):
    assert decide(4, 64, 64, backend="cutlass").kernel == "sparse_gemm"
    assert decide(512, 1024, 2048, backend="cutlass").kernel == "sm90_bf16_a"
    assert decide(4, 1024, 2048, backend="cutlass").kernel == "sparse_gemm"
    assert decide(512, 1024, 2048, backend="cuda") == dispatch.Decision("cuda", "asked for")
    assert decide(512, 1024, 2048, backend="reference").backend == "reference"


def test_a_build_without_cuda_says_so(table, monkeypatch):
    monkeypatch.setattr(ops, "DEVICES", frozenset({"cpu"}))
    decision = decide(512, 1024, 2048)
    assert decision.backend == "reference" and "has no cuda kernels" in decision.reason
    for backend in ("cuda", "cutlass"):
        with pytest.raises(RuntimeError, match=f"backend: '{backend}' cannot run here: .* no cuda kernels"):
            decide(512, 1024, 2048, backend=backend)


def test_explain_quotes_the_measurement(table):
    layer = AmberLinear.from_linear(
        torch.nn.Linear(2048, 1024, dtype=torch.bfloat16), "2:4", score="magnitude"
    )
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(512, 2048, dtype=torch.bfloat16, device="cuda")
        assert "1.31x dense" in explain(layer, x).reason


def test_an_old_gpu_gets_the_reference(table, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    decision = decide(512, 1024, 2048)
    assert decision.backend == "reference" and "compute capability 8.0 or newer" in decision.reason
    with pytest.raises(RuntimeError, match="'cutlass' cannot run here: .* compute capability 8.0"):
        decide(512, 1024, 2048, backend="cutlass")


def test_the_shipped_table_is_well_formed():
    dispatch_table.measurements.cache_clear()
    assert all(entry.speedup >= 1 for entry in dispatch_table.measurements())


def decide_w8a8(tokens, n, k, pattern="2:4", weight_dtype=torch.int8, dtype=torch.bfloat16, backend="auto"):
    with FakeTensorMode():
        x = torch.empty(tokens, k, dtype=dtype, device="cuda")
        weight = torch.empty(n, k, dtype=weight_dtype, device="cuda")
        return choose_w8a8(x, weight, Pattern(pattern), backend)


def test_auto_takes_8_bit_kernels_from_their_own_measurements(table, tmp_path, monkeypatch):
    fields = {**WIN, "dtype": "int8 bfloat16", "kernel": "sm90_s8_a"}
    slow = {**fields, "min_tokens": 64, "kernel": "dense", "speedup": 1.0}
    (tmp_path / "table.json").write_text(json.dumps({"measurements": [WIN, fields, slow]}))
    monkeypatch.setattr(ops, "SPARSE_GEMMS", frozenset({"sm90_bf16_a", "sm90_s8_a"}))
    dispatch_table.measurements.cache_clear()

    won = decide_w8a8(512, 1024, 2048)
    assert (won.backend, won.kernel) == ("cutlass", "sm90_s8_a")
    assert "1.31x dense 8-bit in test.json" in won.reason
    lost = decide_w8a8(64, 1024, 2048)
    assert (lost.backend, lost.kernel) == ("cuda", "dense") and "not pruned" in lost.reason
    for decision in (
        decide_w8a8(512, 1024, 2048, dtype=torch.float16),
        decide_w8a8(512, 1024, 2048, weight_dtype=torch.float8_e4m3fn),
        decide_w8a8(512, 1024, 2048, pattern="8:16"),
        decide_w8a8(512, 1024, 2048 + 64),
        decide_w8a8(512, 1024, 32768 + 128),
        decide_w8a8(8, 1024, 2048),
    ):
        assert (decision.backend, decision.kernel) == ("cuda", "masked_dense")
    assert decide_w8a8(512, 1024, 2048, pattern="1:1").kernel == "masked_dense"
    assert decide_w8a8(8, 1024, 2048, backend="cutlass").kernel == "sparse_gemm"
    # The 16-bit layer keeps its own.
    assert decide(512, 1024, 2048).kernel == "sm90_bf16_a"


def test_8_bit_shapes_that_torch_cannot_multiply_go_to_the_reference(table, monkeypatch):
    assert decide_w8a8(512, 1028, 2048).backend == "reference"
    with pytest.raises(RuntimeError, match="N and K to be multiples of 8"):
        decide_w8a8(512, 1028, 2048, backend="cuda")
    assert decide_w8a8(512, 1032, 2048, weight_dtype=torch.float8_e4m3fn).backend == "reference"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    decision = decide_w8a8(512, 1024, 2048, weight_dtype=torch.float8_e4m3fn)
    assert decision.backend == "reference" and "8.9 or newer" in decision.reason
