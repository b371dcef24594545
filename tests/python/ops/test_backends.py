"""The choice of kernel for a GPU, made on fake CUDA tensors: it needs no GPU."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from amber_ext import AmberLinear, Pattern, explain
from amber_ext.ops import library, measurements, sparse_gemms
from amber_ext.ops.backends import Decision, choose_product, wants_copies
from amber_ext.ops.measurements import Measurement
from amber_ext.ops.sparse_gemms import SparseGemm, problem_of

WIN = Measurement(90, "2:4", "bfloat16", 1024, 2048, 512, "sm90_bf16_a", 1.31, "test.json")
SIXTEEN_BIT = SparseGemm("sm90_bf16_a", 90, "16-bit", "bfloat16", (128, 256, 128), 16, 32, None, 8, False)
EIGHT_BIT = SparseGemm("sm90_s8_a", 90, "int8", "bfloat16", (128, 256, 128), 32, 32, 32768, 8, True)


def changed(entry, **fields):
    return type(entry)(**{**vars(entry), **fields})


GEMMS = (SIXTEEN_BIT, changed(SIXTEEN_BIT, name="sm90_bf16_b"), EIGHT_BIT)


@pytest.fixture
def set_table(monkeypatch, tmp_path):
    """Replaces the measurements, through a file as they are shipped."""
    import json

    def set_table(*entries):
        path = tmp_path / "table.json"
        path.write_text(json.dumps({"measurements": [vars(entry) for entry in entries]}))
        monkeypatch.setattr(measurements, "MEASUREMENTS", measurements.load(path))

    return set_table


@pytest.fixture
def table(monkeypatch, set_table):
    """A table of two classes, on a machine that looks like an H200 with a CUDA build."""
    larger = changed(WIN, min_out_features=8192, min_tokens=128, kernel="sm90_bf16_b")
    slow = changed(WIN, min_tokens=1, kernel="dense", speedup=1.0)
    set_table(WIN, larger, slow)
    monkeypatch.setattr(library, "DEVICES", frozenset({"cpu", "cuda"}))
    monkeypatch.setattr(sparse_gemms, "SPARSE_GEMMS", GEMMS)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))


def decide(tokens, n, k, pattern="2:4", dtype=torch.bfloat16, rescale="none", backend="auto", columns=None):
    with FakeTensorMode():
        x = torch.empty(2, tokens // 2, k, dtype=dtype, device="cuda")
        weight = torch.empty(n, columns or k, dtype=dtype, device="cuda")
        return choose_product(problem_of(x, weight, None, Pattern(pattern), rescale), backend)


def test_auto_takes_the_sparse_gemm_only_where_it_was_measured_to_win(table):
    won = decide(512, 1024, 2048)
    assert (won.backend, won.kernel, won.speedup) == ("cutlass", "sm90_bf16_a", 1.31)
    assert "1.31x dense in test.json" in won.reason
    assert decide(128, 8192, 4096).kernel == "sm90_bf16_b"
    for decision in (decide(510, 1024, 2048), decide(126, 8192, 4096)):
        assert (decision.backend, decision.kernel) == ("dense", "dense")
        assert "dense was fastest in test.json" in decision.reason
    for decision in (
        decide(512, 512, 2048),
        decide(512, 1024, 1024),
        decide(512, 1024, 2048, pattern="4:8"),
        decide(512, 1024, 2048, dtype=torch.float16),
    ):
        assert decision.backend == "cuda" and decision.kernel == "masked_dense"
        assert "nothing was measured" in decision.reason


@pytest.mark.parametrize(
    "n, k, rescale, reason",
    [
        (1028, 2048, "none", "N = 1028 is not a multiple of 8, which sm90_bf16_a needs"),
        (1024, 2056, "none", "K = 2056 is not a multiple of 16, which sm90_bf16_a needs"),
        (1024, 2048, "variance", "rescale: 'variance' does not run on a sparse GEMM"),
    ],
)
def test_auto_prunes_densely_what_the_measured_kernel_cannot_take(table, n, k, rescale, reason):
    decision = decide(512, n, k, rescale=rescale)
    assert (decision.backend, decision.kernel) == ("cuda", "masked_dense") and reason in decision.reason


def decide_windowed(columns, pattern="8:16", backend="auto"):
    return decide(1024, 1024, 2048, pattern, backend=backend, columns=columns)


def test_windowed_kernels_run_on_weights_with_copies(table, set_table):
    set_table(changed(WIN, pattern="8:16"), changed(WIN, pattern="12:16w", kernel="masked_dense"))
    won = decide_windowed(3072)
    assert (won.backend, won.kernel) == ("cutlass", "sm90_bf16_a") and "1.31x dense" in won.reason
    plain = decide_windowed(2048)
    assert (plain.backend, plain.kernel) == ("cuda", "masked_dense") and "widen_weight" in plain.reason
    assert decide_windowed(3072, "12:16w").kernel == "masked_dense"
    assert "nothing was measured" in decide_windowed(2560, "10:16w").reason
    assert decide_windowed(2560, "10:16w", "cutlass").kernel == "sm90_bf16_a"
    with pytest.raises(ValueError, match=r"weight: shape \[1024, 2048\] has no copies for .* 10:16w"):
        decide_windowed(2048, "10:16w", "cutlass")


def test_layers_keep_copies_only_where_a_sparse_kernel_was_fastest(table, set_table):
    slow = changed(WIN, pattern="12:16w", kernel="masked_dense")
    set_table(changed(WIN, pattern="8:16"), slow, changed(slow, min_tokens=9000, kernel="dense"))

    def wants(pattern, backend="auto", device="cuda", n=1024, rescale="none"):
        with FakeTensorMode():
            weight = torch.empty(n, 2048, dtype=torch.bfloat16, device=device)
            return wants_copies(weight, weight.dtype, Pattern(pattern), rescale, backend)

    assert wants("8:16") and wants("12:16w", "cutlass") and wants("4:8", "cutlass")
    assert not wants("12:16w") and not wants("4:8") and not wants("8:16", n=512)
    assert not wants("2:4", "cutlass") and not wants("10:16", "cutlass")
    assert not wants("8:16", "cuda") and not wants("8:16", "reference")
    assert not wants("8:16", "cutlass", device="cpu")
    # What no sparse GEMM takes needs no copies.
    assert not wants("8:16", rescale="variance") and not wants("8:16", "cutlass", rescale="variance")
    assert not wants("8:16", "cutlass", n=1028)


def test_another_arch_is_not_covered(table, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    assert decide(512, 1024, 2048).backend == "cuda"
    with pytest.raises(
        RuntimeError, match="'cutlass' is not in this build for compute capability 8.0, 16-bit"
    ):
        decide(512, 1024, 2048, backend="cutlass")


def test_a_measured_kernel_that_was_not_built_is_not_taken(table, monkeypatch):
    monkeypatch.setattr(sparse_gemms, "SPARSE_GEMMS", GEMMS[1:])
    assert decide(512, 1024, 2048) == Decision(
        "cuda", "masked dense: nothing was measured for this shape, GPU and build"
    )
    assert decide(512, 1024, 2048, backend="cutlass").kernel == "sm90_bf16_b"


def test_explicit_backends(table):
    assert decide(4, 64, 64, backend="cutlass").kernel == "sm90_bf16_a"
    assert decide(512, 1024, 2048, backend="cutlass").speedup == 1.31
    assert decide(128, 8192, 4096, backend="cutlass").kernel == "sm90_bf16_b"
    assert decide(4, 1024, 2048, backend="cutlass").kernel == "sm90_bf16_a"
    assert decide(512, 1024, 2048, backend="cuda") == Decision("cuda", "asked for")
    assert decide(512, 1024, 2048, backend="reference").backend == "reference"


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"k": 72}, "x: its last dimension K = 72 is not a multiple of 16, which sm90_bf16_a needs"),
        ({"n": 12}, "N = 12 is not a multiple of 8"),
        ({"rescale": "variance"}, "rescale: 'variance' does not run on a sparse GEMM"),
        ({"pattern": "1:4"}, "pattern: '1:4' does not run on a sparse GEMM; allowed: '2:4'"),
        (
            {"dtype": torch.float32},
            "not in this build for compute capability 9.0, 32-bit operands",
        ),
    ],
)
def test_an_explicit_sparse_gemm_that_cannot_run_is_refused(table, fields, reason):
    shape = {"n": 64, "k": 64, **fields}
    with pytest.raises(RuntimeError) as error:
        decide(4, **shape, backend="cutlass")
    assert reason in str(error.value)


def test_a_build_without_cuda_says_so(table, monkeypatch):
    monkeypatch.setattr(library, "DEVICES", frozenset({"cpu"}))
    decision = decide(512, 1024, 2048)
    assert decision.backend == "reference" and "has no cuda kernels" in decision.reason
    for backend in ("cuda", "cutlass"):
        with pytest.raises(RuntimeError, match=f"backend: '{backend}' cannot run here: .* no cuda kernels"):
            decide(512, 1024, 2048, backend=backend)


def test_explain_quotes_the_measurement(table):
    dense = torch.nn.Linear(2048, 1024, dtype=torch.bfloat16, device="meta")
    layer = AmberLinear.from_linear(dense, "2:4", score="magnitude")
    with FakeTensorMode():
        layer.weight = torch.nn.Parameter(torch.empty(1024, 2048, dtype=torch.bfloat16, device="cuda"))
        layer.bias = None
        x = torch.empty(512, 2048, dtype=torch.bfloat16, device="cuda")
        assert "1.31x dense" in explain(layer, x).reason


def test_an_old_gpu_gets_the_reference(table, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    decision = decide(512, 1024, 2048)
    assert decision.backend == "reference" and "compute capability 8.0 or newer" in decision.reason
    with pytest.raises(RuntimeError, match="'cutlass' cannot run here: .* compute capability 8.0"):
        decide(512, 1024, 2048, backend="cutlass")


def decide_w8a8(tokens, n, k, pattern="2:4", weight_dtype=torch.int8, dtype=torch.bfloat16, backend="auto"):
    with FakeTensorMode():
        x = torch.empty(tokens, k, dtype=dtype, device="cuda")
        weight = torch.empty(n, k, dtype=weight_dtype, device="cuda")
        return choose_product(problem_of(x, weight, None, Pattern(pattern), "variance"), backend)


def test_auto_takes_8_bit_kernels_from_their_own_measurements(table, set_table):
    fields = changed(WIN, dtype="int8 bfloat16", kernel="sm90_s8_a")
    set_table(WIN, fields, changed(fields, min_tokens=64, kernel="dense", speedup=1.0))

    won = decide_w8a8(512, 1024, 2048)
    assert (won.backend, won.kernel) == ("cutlass", "sm90_s8_a")
    assert "1.31x dense 8-bit in test.json" in won.reason
    lost = decide_w8a8(64, 1024, 2048)
    assert (lost.backend, lost.kernel) == ("dense", "dense") and "not pruned" in lost.reason
    for decision in (
        decide_w8a8(512, 1024, 2048, dtype=torch.float16),
        decide_w8a8(512, 1024, 2048, weight_dtype=torch.float8_e4m3fn),
        decide_w8a8(512, 1024, 2048, pattern="8:16"),
        decide_w8a8(512, 1024, 2048 + 16),
        decide_w8a8(512, 1024, 32768 + 128),
        decide_w8a8(8, 1024, 2048),
    ):
        assert (decision.backend, decision.kernel) == ("cuda", "masked_dense")
    assert decide_w8a8(512, 1024, 2048, pattern="1:1").kernel == "masked_dense"
    assert decide_w8a8(8, 1024, 2048, backend="cutlass").kernel == "sm90_s8_a"
    # SmolLM2's K, which is no multiple of 128.
    assert decide_w8a8(512, 1536, 576, backend="cutlass").kernel == "sm90_s8_a"
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
