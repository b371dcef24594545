"""The choice of kernel for a GPU, made on fake CUDA tensors: it needs no GPU."""

import dataclasses

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from amber_ext import AmberLinear, Pattern, explain
from amber_ext.ops import library
from amber_ext.ops.backends import Decision
from amber_ext.ops.choice.measured import Entry
from amber_ext.ops.choice.products import decide, plan_key, plan_of, problem_of, wants_copies
from amber_ext.ops.sparse_gemms import SparseGemm

# Up to 511 tokens masked dense is the fastest with this result, from then on sparse GEMM a, from 2048 on b.
FEW = {"masked_dense": 1.2, "sm90_bf16_a": 2.0, "sm90_bf16_b": 2.0, "dense": 1.0}
WIN_A = {"masked_dense": 2.2, "sm90_bf16_a": 1.6, "sm90_bf16_b": 2.0, "dense": 2.0}
WIN_B = {"masked_dense": 8.2, "sm90_bf16_a": 7.0, "sm90_bf16_b": 5.0, "dense": 8.0}
ENTRY = Entry(
    1024, 2048, "2:4", "bfloat16", {1: FEW, 511: FEW, 512: WIN_A, 2047: WIN_A, 2048: WIN_B, 4096: WIN_B}
)
TILE = (128, 256, 128)
SIXTEEN_BIT = SparseGemm("sm90_bf16_a", 90, (90,), "16-bit", "bfloat16", TILE, 16, 32, None, 8, False)
EIGHT_BIT = SparseGemm("sm90_s8_a", 90, (90,), "int8", "bfloat16", TILE, 32, 32, 32768, 8, True)
GEMMS = (SIXTEEN_BIT, dataclasses.replace(SIXTEEN_BIT, name="sm90_bf16_b"), EIGHT_BIT)


@pytest.fixture
def gpu(fake_gpu):
    """A machine that looks like one with an H200, its CUDA build, and a measured shape."""
    fake_gpu("H200", 90, GEMMS, [ENTRY])
    return fake_gpu


def key_for(n, k, pattern="2:4", rescale="none", backend="auto", columns=None, unpruned=False, **dtypes):
    dtype = dtypes.get("dtype", torch.bfloat16)
    with FakeTensorMode():
        weight = torch.empty(n, columns or k, dtype=dtypes.get("weight_dtype", dtype), device="cuda")
        return plan_key(dtype, k, weight, True, Pattern(pattern), rescale, backend, unpruned)


def decide_for(tokens, *shape, **fields):
    key = key_for(*shape, **fields)
    return decide(problem_of(*key), plan_of(*key), tokens)


def test_auto_takes_what_was_measured_to_be_fastest_with_the_same_result(gpu):
    for tokens, kernel in ((2, "masked_dense"), (500, "masked_dense"), (512, "sm90_bf16_a")):
        assert decide_for(tokens, 1024, 2048).kernel == kernel
    won = decide_for(4096, 1024, 2048)
    assert (won.backend, won.kernel, won.source) == ("cutlass", "sm90_bf16_b", "measured")
    assert (won.ms, won.dense_ms, won.speedup) == (5.0, 8.0, 1.6)
    assert won.reason == "measured (shipped) 5 ms, dense 8 ms at T = 4096 on H200"
    lost = decide_for(100, 1024, 2048)
    assert (lost.backend, lost.speedup) == ("cuda", pytest.approx(1 / 1.2))


def test_what_is_computed_changes_only_where_that_is_allowed(gpu):
    decision = decide_for(100, 1024, 2048, unpruned=True)
    assert (decision.backend, decision.kernel) == ("dense", "dense")
    assert decision.reason.startswith("not pruned, which allow_unpruned allows: dense is fastest; measured")
    assert decide_for(4096, 1024, 2048, unpruned=True).kernel == "sm90_bf16_b"
    for n, k in ((1024, 2048), (64, 64), (14336, 4096)):
        assert "dense" not in plan_of(*key_for(n, k)).kernels


def test_what_was_not_measured_is_predicted(gpu):
    """No shape but the very one, and no tokens but those between the measured ones."""
    for tokens, shape, fields in (
        (2048, (2048, 2048), {}),
        (2048, (1024, 4096), {}),
        (2048, (1024, 2048), {"dtype": torch.float16}),
        (4097, (1024, 2048), {}),
    ):
        decision = decide_for(tokens, *shape, **fields)
        assert decision.source == "predicted" and decision.reason.endswith(f"at T = {tokens} on H200")


def test_another_gpu_of_the_architecture_is_predicted(gpu):
    gpu("H100", 90, GEMMS)
    assert decide_for(2048, 1024, 2048).source == "predicted"


@pytest.mark.parametrize(
    "n, k, rescale, reason",
    [
        (1028, 2048, "none", "N = 1028 is not a multiple of 8, which sm90_bf16_a needs"),
        (1024, 2056, "none", "K = 2056 is not a multiple of 16, which sm90_bf16_a needs"),
        (1024, 2048, "variance", "rescale: 'variance' does not run on a sparse GEMM"),
    ],
)
def test_auto_prunes_densely_what_no_sparse_gemm_takes(gpu, n, k, rescale, reason):
    decision = decide_for(512, n, k, rescale=rescale)
    assert (decision.backend, decision.kernel) == ("cuda", "masked_dense") and reason in decision.reason


def test_windowed_kernels_run_on_weights_with_copies(gpu):
    gpu("H200", 90, GEMMS, [dataclasses.replace(ENTRY, pattern="8:16")])
    assert decide_for(1024, 1024, 2048, pattern="8:16", columns=3072).kernel == "sm90_bf16_a"
    plain = decide_for(1024, 1024, 2048, pattern="8:16")
    assert (plain.backend, plain.kernel) == ("cuda", "masked_dense") and "widen_weight" in plain.reason
    asked = decide_for(1024, 1024, 2048, pattern="10:16w", columns=2560, backend="cutlass")
    assert asked.kernel == "sm90_bf16_a"
    with pytest.raises(ValueError, match=r"weight: shape \[1024, 2048\] has no copies for .* 10:16w"):
        decide_for(1024, 1024, 2048, pattern="10:16w", backend="cutlass")


def test_layers_keep_copies_only_where_a_sparse_kernel_reads_them(gpu):
    slow = Entry(1024, 2048, "12:16w", "bfloat16", {1: FEW, 2**18: FEW})
    gpu("H200", 90, GEMMS, [dataclasses.replace(ENTRY, pattern="8:16"), slow])

    def wants(pattern, backend="auto", n=1024, rescale="none"):
        return wants_copies(*key_for(n, 2048, pattern, rescale, backend))

    assert wants("8:16") and wants("12:16w", "cutlass") and wants("4:8", "cutlass")
    assert not wants("12:16w") and not wants("2:4", "cutlass") and not wants("10:16", "cutlass")
    assert not wants("8:16", "cuda") and not wants("8:16", "reference")
    # What no sparse GEMM takes needs no copies.
    assert not wants("8:16", rescale="variance") and not wants("8:16", "cutlass", rescale="variance")
    assert not wants("8:16", "cutlass", n=1028)
    assert not wants_copies(
        *plan_key(torch.float32, 16, torch.ones(8, 16), True, "8:16", "none", "cutlass", False)
    )


def test_a_gpu_without_kernels_in_this_build_says_so(gpu):
    gpu("RTX 5090", 120, GEMMS)
    decision = decide_for(2048, 1024, 2048)
    why = "device: for compute capability 12.0, 16-bit operands and dtype bfloat16 this build has no sparse GEMM"
    assert (decision.backend, decision.kernel) == ("cuda", "masked_dense")
    assert decision.reason.startswith(why) and "\n" not in decision.reason and "predicted" in decision.reason
    with pytest.raises(RuntimeError, match=why):
        decide_for(2048, 1024, 2048, backend="cutlass")


def test_a_measured_kernel_that_was_not_built_is_not_taken(gpu):
    gpu("H200", 90, GEMMS[1:], [ENTRY])
    assert decide_for(600, 1024, 2048).kernel == "sm90_bf16_b"
    gpu("H200", 90, (), [ENTRY])
    assert decide_for(600, 1024, 2048).kernel == "masked_dense"


def test_a_kernel_that_failed_its_check_is_not_taken_at_all(gpu):
    gpu("H200", 90, GEMMS, [dataclasses.replace(ENTRY, refused={"sm90_bf16_b": "wrong"})])
    kernels = plan_of(*key_for(1024, 2048)).kernels
    assert "sm90_bf16_a" in kernels and "sm90_bf16_b" not in kernels
    both = {"sm90_bf16_a": "wrong", "sm90_bf16_b": "wrong"}
    gpu("H200", 90, GEMMS, [dataclasses.replace(ENTRY, refused=both)])
    decision = decide_for(4096, 1024, 2048)
    assert decision.kernel == "masked_dense" and "'sm90_bf16_a' did not pass its check" in decision.reason
    with pytest.raises(RuntimeError, match="did not pass its check on this machine: wrong"):
        decide_for(4096, 1024, 2048, backend="cutlass")


def test_explicit_backends(gpu):
    assert decide_for(4, 64, 64, backend="cutlass").kernel == "sm90_bf16_a"
    assert decide_for(4, 1024, 2048, backend="cutlass").kernel == "sm90_bf16_a"
    assert decide_for(4096, 1024, 2048, backend="cutlass").speedup == 1.6
    cuda = decide_for(512, 1024, 2048, backend="cuda")
    assert (cuda.backend, cuda.kernel) == ("cuda", "masked_dense") and cuda.reason.startswith("asked for")
    assert decide_for(512, 1024, 2048, backend="reference") == Decision("reference", "asked for")


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"k": 72}, "x: its last dimension K = 72 is not a multiple of 16, which sm90_bf16_a needs"),
        ({"n": 12}, "N = 12 is not a multiple of 8"),
        ({"rescale": "variance"}, "rescale: 'variance' does not run on a sparse GEMM"),
        ({"pattern": "1:4"}, "pattern: '1:4' does not run on a sparse GEMM; allowed: '2:4'"),
        (
            {"dtype": torch.float32},
            "compute capability 9.0, 32-bit operands and dtype float32 this build has no",
        ),
    ],
)
def test_an_explicit_sparse_gemm_that_cannot_run_is_refused(gpu, fields, reason):
    shape = {"n": 64, "k": 64, **fields}
    with pytest.raises(RuntimeError) as error:
        decide_for(4, **shape, backend="cutlass")
    assert reason in str(error.value)


def test_more_tokens_than_a_sparse_gemm_takes_are_refused(gpu):
    with pytest.raises(RuntimeError, match="x: T = 2147483648 tokens are too many"):
        decide_for(2**31, 1024, 2048)


def test_a_build_without_cuda_says_so(gpu, monkeypatch):
    monkeypatch.setattr(library, "DEVICES", frozenset({"cpu"}))
    decision = decide_for(512, 1024, 2048)
    assert decision.backend == "reference" and "has no cuda kernels" in decision.reason
    for backend in ("cuda", "cutlass"):
        with pytest.raises(RuntimeError, match=f"backend: '{backend}' cannot run here: .* no cuda kernels"):
            decide_for(512, 1024, 2048, backend=backend)


def test_explain_quotes_the_measurement(gpu):
    dense = torch.nn.Linear(2048, 1024, dtype=torch.bfloat16, device="meta")
    layer = AmberLinear.from_linear(dense, "2:4", score="magnitude")
    with FakeTensorMode():
        layer.weight = torch.nn.Parameter(torch.empty(1024, 2048, dtype=torch.bfloat16, device="cuda"))
        layer.bias = None
        x = torch.empty(2, 256, 2048, dtype=torch.bfloat16, device="cuda")
        assert explain(layer, x).reason == "measured (shipped) 1.6 ms, dense 2 ms at T = 512 on H200"


def test_an_old_gpu_gets_the_reference(gpu):
    gpu("T4", 75, GEMMS)
    decision = decide_for(512, 1024, 2048)
    assert decision.backend == "reference" and "compute capability 8.0 or newer" in decision.reason
    with pytest.raises(RuntimeError, match="'cutlass' cannot run here: .* compute capability 8.0"):
        decide_for(512, 1024, 2048, backend="cutlass")


def decide_w8a8(tokens, n, k, weight_dtype=torch.int8, **fields):
    return decide_for(tokens, n, k, **{"rescale": "variance", "weight_dtype": weight_dtype, **fields})


def test_8_bit_products_have_their_own_measurements(gpu):
    ms = {"masked_dense": 2.0, "sm90_s8_a": 1.0, "dense": 2.0}
    gpu("H200", 90, GEMMS, [ENTRY, Entry(1024, 2048, "2:4", "int8 bfloat16", {1: ms, 4096: ms})])
    won = decide_w8a8(512, 1024, 2048)
    assert (won.backend, won.kernel, won.speedup) == ("cutlass", "sm90_s8_a", 2.0)
    assert "dense 8-bit 2 ms" in won.reason
    for shape, fields in (
        ((1024, 2048), {"dtype": torch.float16}),
        ((1024, 2048), {"weight_dtype": torch.float8_e4m3fn}),
        ((1024, 2048), {"pattern": "8:16"}),
        ((1024, 2048 + 16), {}),
        ((1024, 32768 + 128), {}),
    ):
        decision = decide_w8a8(512, *shape, **fields)
        assert (decision.backend, decision.kernel) == ("cuda", "masked_dense")
    assert decide_w8a8(512, 1024, 2048, pattern="1:1").kernel == "masked_dense"
    # SmolLM2's K, which is no multiple of 128.
    assert decide_w8a8(512, 1536, 576, backend="cutlass").kernel == "sm90_s8_a"
    # The 16-bit layer keeps its own.
    assert decide_for(512, 1024, 2048).kernel == "sm90_bf16_a"


def test_8_bit_shapes_that_torch_cannot_multiply_go_to_the_reference(gpu):
    assert decide_w8a8(512, 1028, 2048).backend == "reference"
    with pytest.raises(RuntimeError, match="N and K to be multiples of 8"):
        decide_w8a8(512, 1028, 2048, backend="cuda")
    assert decide_w8a8(512, 1032, 2048, weight_dtype=torch.float8_e4m3fn).backend == "reference"
    gpu("A100", 80, GEMMS)
    decision = decide_w8a8(512, 1024, 2048, weight_dtype=torch.float8_e4m3fn)
    assert decision.backend == "reference" and "8.9 or newer" in decision.reason
