"""`explain` and the layer agree, and both with the compiled rule, on every combination; fake CUDA tensors, no GPU."""

import itertools
import json

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from amber_ext import AmberLinear, Pattern, QuantizedLinear, explain
from amber_ext.ops import library, measurements, sparse_gemms
from amber_ext.ops.derived import mark
from amber_ext.ops.measurements import Measurement
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
ARCHS = [75, 80, 89, 90, 100]

# As a build for SM80 and SM90 describes them.
GEMMS = tuple(
    SparseGemm(
        f"sm{arch}_{name}_{dtype}", arch, operands, dtype, (128, 128, 128), k, max(k, 32), most, n, scales
    )
    for arch, name, operands, k, most, n, scales in (
        (90, "", "16-bit", 16, None, 8, False),
        (90, "s8", "int8", 32, 32768, 8, True),
        (90, "e4m3", "e4m3", 32, 32768, 8, True),
        (80, "", "16-bit", 64, None, 8, False),
        (80, "s8", "int8", 128, 32768, 16, True),
    )
    for dtype in ("bfloat16", "float16")
)


@pytest.fixture
def cuda_build(monkeypatch):
    """A CUDA build whose every kernel was measured to win at 64 tokens and more, dense below; returns a switch of GPUs."""
    entries = []
    for gemm, pattern in itertools.product(GEMMS, EXTRA_WINDOWS):
        operands = {"int8": "int8 ", "e4m3": "float8_e4m3fn "}.get(gemm.operands, "")
        for tokens, kernel in ((64, gemm.name), (1, "dense")):
            entries.append(
                Measurement(gemm.arch, pattern, operands + gemm.dtype, 1, 1, tokens, kernel, 1.5, "test.json")
            )
    monkeypatch.setattr(measurements, "MEASUREMENTS", tuple(entries))
    monkeypatch.setattr(sparse_gemms, "SPARSE_GEMMS", GEMMS)
    monkeypatch.setattr(library, "DEVICES", frozenset({"cpu", "cuda"}))

    def on(arch):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: divmod(arch, 10))

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


def make_layer(x_dtype, weight_dtype, pattern, rescale, n, k, backend, copies):
    """A layer on a fake GPU; on the meta device first, where no values are computed."""
    if weight_dtype.itemsize > 1:
        dense = torch.nn.Linear(k, n, bias=False, dtype=weight_dtype, device="meta")
        layer = AmberLinear.from_linear(dense, pattern, "magnitude", rescale, backend)
    else:
        layer = QuantizedLinear(
            k, n, bias=False, smooth=False, channel_scale=False, pattern=pattern, rescale=rescale,
            backend=backend, dtype="int8" if weight_dtype == torch.int8 else "e4m3", device="meta",
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


def runs_as_explained(decision, layer, seen):
    """Whether the recorded ops are those that the decision names."""
    names = [name for name, _ in seen]
    if decision.backend == "reference":
        return names == []
    if isinstance(layer, QuantizedLinear):
        if decision.backend == "cutlass":
            return names == ["sparse_linear_w8a8"] and seen[0][1][-1] == decision.kernel
        pruned_to = seen[0][1][3]
        expected = "1:1" if decision.backend == "dense" else str(layer.pattern)
        return names[0] == "quantize_activations" and pruned_to == expected
    if decision.backend == "dense":
        return names == []
    return names == ["linear"] and seen[0][1][-1] == decision.kernel


def combinations(backend):
    for kind, pattern, rescale, k, n in itertools.product(
        KINDS, PATTERNS, RESCALES, IN_FEATURES, OUT_FEATURES
    ):
        yield (*kind, pattern, rescale, n, k, backend)


@pytest.mark.parametrize("backend", ["auto", "cutlass", "cuda"])
def test_explain_and_the_layer_agree(cuda_build, backend):
    decided, refused = set(), set()
    with FakeTensorMode(allow_non_fake_inputs=True):
        for fields in combinations(backend):
            layer = make_layer(*fields, copies=True)
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
                assert runs_as_explained(decision, layer, ops.seen), (fields, arch, decision, ops.seen)
                decided.add(decision.backend)
    expected = {"auto": {"cutlass", "cuda", "dense", "reference"}, "cutlass": {"cutlass"}, "cuda": {"cuda"}}
    assert decided == expected[backend]
    assert (refused == set()) == (backend == "auto")


def test_without_copies_windowed_patterns_are_pruned_densely(cuda_build):
    cuda_build(90)
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(128, 512, dtype=torch.bfloat16, device="cuda")
        for pattern in EXTRA_WINDOWS:
            layer = make_layer(torch.bfloat16, torch.bfloat16, pattern, "none", 64, 512, "auto", copies=False)
            assert explain(layer, x).backend == ("cutlass" if pattern == "2:4" else "cuda")


def test_the_compiled_rule_is_the_same(monkeypatch):
    """The op asks csrc/amber/cuda/sparse_gemm/refusal.cpp; in the same words."""
    kernels = json.loads(torch.ops.amber.sparse_gemm_kernels()) if library.LOAD_ERROR is None else []
    if not kernels:
        pytest.skip("this build has no sparse GEMMs")
    assert [gemm.name for gemm in sparse_gemms.SPARSE_GEMMS] == [kernel["name"] for kernel in kernels]
    answers = set()
    for gemm in sparse_gemms.SPARSE_GEMMS:
        for arch, kind, pattern, rescale, k, n, tokens in itertools.product(
            (80, 86, 90),
            KINDS,
            PATTERNS,
            RESCALES,
            [*IN_FEATURES, 32768 + 128],
            [*OUT_FEATURES, 0],
            (0, 5, 2**31),
        ):
            if kind[1] == torch.float32:
                continue  # the op has no name for such operands: it refuses by the dtype
            monkeypatch.setattr(
                torch.cuda, "get_device_capability", lambda device=None, a=arch: divmod(a, 10)
            )
            columns = widened_features(k, Pattern(pattern)) or k
            problem = Problem(
                torch.device("cuda"), *kind, Pattern(pattern), rescale, tokens, n, k, columns, True
            )
            dtype = str(kind[0]).removeprefix("torch.")
            compiled = torch.ops.amber.sparse_gemm_refusal(
                gemm.name, arch, problem.operands, dtype, pattern, rescale, tokens, n, k
            )
            assert (refusal(gemm, problem) or "") == compiled, (gemm, problem)
            answers.add(compiled.partition(":")[0])
    assert answers >= {"", "kernel", "pattern", "rescale", "x", "weight"}
