"""`explain` and the layer agree, and both with the compiled rule, on every combination; fake CUDA tensors, no GPU."""

import itertools
import json

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from amber_ext import AmberLinear, Pattern, QuantizedLinear, explain
from amber_ext.ops import library, sparse_gemms
from amber_ext.ops.choice import devices
from amber_ext.ops.choice.measured import Entry
from amber_ext.ops.choice.plan import Plan
from amber_ext.ops.derived import mark
from amber_ext.ops.pattern import EXTRA_WINDOWS, widened_features
from amber_ext.ops.sparse_gemms import Problem, SparseGemm, refusal

PATTERNS = [*EXTRA_WINDOWS, "1:4"]
# Dtype of x, and of the weight.
KINDS = [
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.int8),
    (torch.float16, torch.int8),
    (torch.bfloat16, torch.float8_e4m3fn),
]
RESCALES = ["none", "variance"]
IN_FEATURES = [512 + residue for residue in (0, 16, 32, 64, 96)]
OUT_FEATURES = [64, 64 + 8, 64 + 4]
ARCHS = [75, 80, 89, 90, 100, 120]

# As a build for SM80 and SM90 describes them.
GEMMS = tuple(
    SparseGemm(
        f"sm{archs[0]}_{name}_{dtype}",
        archs[0],
        archs,
        operands,
        dtype,
        (128, 128, 128),
        k,
        max(k, 32),
        most,
        n,
        scales,
    )
    for archs, name, operands, k, most, n, scales in (
        ((90,), "", "16-bit", 16, None, 8, False),
        ((90,), "s8", "int8", 32, 32768, 8, True),
        ((90,), "e4m3", "e4m3", 32, 32768, 8, True),
        ((80, 86, 89, 120), "", "16-bit", 64, None, 8, False),
        ((80, 86, 89, 120), "s8", "int8", 128, 32768, 16, True),
    )
    for dtype in ("bfloat16", "float16")
)


# ms at few and at many tokens: with few of them not to prune is fastest, with many the sparse GEMM is.
FEW = {"masked_dense": 3.0, "dense": 2.0} | {gemm.name: 4.0 for gemm in GEMMS}
MANY = {"masked_dense": 3.0, "dense": 2.0} | {gemm.name: 1.0 for gemm in GEMMS}


@pytest.fixture
def cuda_build(fake_gpu, monkeypatch):
    """A CUDA build whose every kernel was measured; returns a switch of GPUs."""
    dtypes = {gemm.dtype for gemm in GEMMS} | {
        f"{operands} {gemm.dtype}" for gemm in GEMMS for operands in ("int8", "float8_e4m3fn")
    }
    entries = [
        Entry(n, k, pattern, dtype, {1: FEW, 32: FEW, 64: MANY, 256: MANY})
        for n, k, pattern, dtype in itertools.product(OUT_FEATURES, IN_FEATURES, EXTRA_WINDOWS, dtypes)
    ]
    fake_gpu("GPU", 90, GEMMS, entries)

    def on(arch):
        device = devices.describe("GPU", arch, 132)
        monkeypatch.setattr(devices, "device_of", lambda _: device)

    return on


class OpsOfOurs(TorchDispatchMode):
    """Records the amber ops that run, by name with their last argument."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "amber":
            self.seen.append((func.name().removeprefix("amber::"), args))
        return func(*args, **(kwargs or {}))


def make_layer(x_dtype, weight_dtype, pattern, rescale, n, k, backend, copies, unpruned=False):
    """A layer on a fake GPU; on the meta device first, where no values are computed."""
    if weight_dtype.itemsize > 1:
        dense = torch.nn.Linear(k, n, bias=False, dtype=weight_dtype, device="meta")
        layer = AmberLinear.from_linear(dense, pattern, "magnitude", rescale, backend, unpruned)
    else:
        layer = QuantizedLinear(
            k, n, bias=False, smooth=False, channel_scale=False, pattern=pattern, rescale=rescale,
            backend=backend, dtype="int8" if weight_dtype == torch.int8 else "e4m3", device="meta",
            allow_unpruned=unpruned,
        )  # fmt: skip
        layer.weight_scale = torch.empty(n, device="cuda")
    columns = widened_features(k, Pattern(pattern)) if copies else k
    weight = torch.empty(n, columns or k, dtype=weight_dtype, device="cuda")
    layer._parameters.pop("weight", None), layer._buffers.pop("weight", None)
    layer.weight = weight if columns in (None, k) else weight.narrow(1, 0, k)
    layer.wide_weight = None if columns in (None, k) else weight
    if layer.wide_weight is not None:
        mark(layer.wide_weight, layer.weight)  # a fake tensor has no values to make copies of
    return layer


def outcome(call):
    try:
        return call(), None
    except (RuntimeError, ValueError, TypeError) as error:
        return None, (type(error), str(error))


def runs_as_explained(decision, layer, x, seen):
    """Whether the recorded ops are those that the decision names."""
    names = [name for name, _ in seen]
    if decision.backend == "reference":
        return names == []
    if names[0] == "quantize_activations":  # the only one of its plan's kernels
        return decision.kernel == "masked_dense" and seen[0][1][3] == str(layer.pattern)
    kernels, thresholds = seen[0][1][-2:]
    expected = "linear_w8a8" if isinstance(layer, QuantizedLinear) else "linear"
    return names == [expected] and decision.kernel == Plan("", "", kernels, thresholds).kernel(len(x))


def combinations(backend):
    for kind, pattern, rescale, k, n in itertools.product(
        KINDS, PATTERNS, RESCALES, IN_FEATURES, OUT_FEATURES
    ):
        yield (*kind, pattern, rescale, n, k, backend)


@pytest.mark.parametrize(
    "backend, unpruned, decided_by",
    [
        ("auto", False, {"cutlass", "cuda", "reference"}),
        ("auto", True, {"cutlass", "cuda", "dense", "reference"}),
        ("cutlass", False, {"cutlass"}),
        ("cuda", False, {"cuda"}),
    ],
)
def test_explain_and_the_layer_agree(cuda_build, backend, unpruned, decided_by):
    decided, refused = set(), set()
    with FakeTensorMode(allow_non_fake_inputs=True):
        for fields in combinations(backend):
            layer = make_layer(*fields, copies=True, unpruned=unpruned)
            for arch, tokens in itertools.product(ARCHS, (8, 128)):
                cuda_build(arch)
                x = torch.empty(tokens, fields[5], dtype=fields[0], device="cuda")
                decision, explained = outcome(lambda: explain(layer, x))  # noqa: B023
                if decision is not None and decision.backend == "reference":
                    decided.add(decision.backend)
                    continue  # plain PyTorch: it runs wherever torch does
                with OpsOfOurs() as ops:
                    _, raised = outcome(lambda: layer(x))  # noqa: B023
                assert raised == explained, (fields, arch)
                if decision is None:
                    refused.add(raised[0])
                    continue
                assert runs_as_explained(decision, layer, x, ops.seen), (fields, arch, decision, ops.seen)
                decided.add(decision.backend)
    assert decided == decided_by
    assert (refused == set()) == (backend == "auto")


def test_without_copies_windowed_patterns_are_pruned_densely(cuda_build):
    cuda_build(90)
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(128, 512, dtype=torch.bfloat16, device="cuda")
        for pattern in EXTRA_WINDOWS:
            layer = make_layer(torch.bfloat16, torch.bfloat16, pattern, "none", 64, 512, "auto", copies=False)
            assert explain(layer, x).backend == ("cutlass" if pattern == "2:4" else "cuda")


def test_the_compiled_rule_is_the_same():
    """The op asks csrc/amber/cuda/sparse_gemm/refusal.cpp; in the same words."""
    kernels = json.loads(torch.ops.amber.sparse_gemm_kernels()) if library.LOAD_ERROR is None else []
    if not kernels:
        pytest.skip("this build has no sparse GEMMs")
    assert [gemm.name for gemm in sparse_gemms.SPARSE_GEMMS] == [kernel["name"] for kernel in kernels]
    answers = set()
    for gemm in sparse_gemms.SPARSE_GEMMS:
        for arch, kind, pattern, rescale, k, n, tokens in itertools.product(
            (80, 86, 90, 100, 121),
            KINDS,
            PATTERNS,
            RESCALES,
            [*IN_FEATURES, 32768 + 128],
            [*OUT_FEATURES, 0],
            (0, 5, 2**31),
        ):
            if kind[1] == torch.float32:
                continue  # the op has no name for such operands: it refuses by the dtype
            columns = widened_features(k, Pattern(pattern)) or k
            problem = Problem(
                torch.device("cuda"), arch, *kind, Pattern(pattern), rescale, n, k, columns, True
            )
            dtype = str(kind[0]).removeprefix("torch.")
            compiled = torch.ops.amber.sparse_gemm_refusal(
                gemm.name, arch, problem.operands, dtype, pattern, rescale, tokens, n, k
            )
            assert (refusal(gemm, problem, tokens) or "") == compiled, (gemm, problem)
            answers.add(compiled.partition(":")[0])
    assert answers >= {"", "kernel", "pattern", "rescale", "x", "weight"}
