"""The sparse GEMMs of this build: what each takes, and whether it takes a product."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from amber_ext.ops import library
from amber_ext.ops.choice import devices
from amber_ext.ops.pattern import EXTRA_WINDOWS, Pattern, extra_windows, widened_features

# The operands of a product, by the weight's dtype. Sparse GEMMs exist for all but the last.
OPERANDS = {
    torch.int8: "int8",
    torch.float8_e4m3fn: "e4m3",
    torch.bfloat16: "16-bit",
    torch.float16: "16-bit",
    torch.float32: "32-bit",
}

# Kernels that are not sparse GEMMs: prune, then torch's dense product; and that product of x as it is.
MASKED_DENSE = "masked_dense"
DENSE = "dense"

# How a sparse GEMM may walk the tiles of Y, written behind its name: along M or N, in strips of up to so many tiles. Without
# it, CUTLASS chooses the order by the shape. Those for SM80 walk them in one way alone.
WALKS = tuple(f"@{order}{swizzle}" for order in "MN" for swizzle in (1, 4, 8))

# CUTLASS takes problem sizes as int.
LARGEST_SIZE = 2**31 - 1


@dataclass(frozen=True)
class Problem:
    """The product ``prune(x) Wᵀ``, for any number of tokens.

    Attributes:
        arch: compute capability of a GPU, major * 10 + minor; 0 on other devices.
        dtype: of x and Y.
        weight_dtype: `torch.int8` and `torch.float8_e4m3fn` are products on quantised activations.
        out_features, in_features: N and K.
        weight_columns: K, or K' of a weight from `widen_weight`.
        aligned: weight and bias are contiguous and begin at a multiple of 16 bytes.
    """

    device: torch.device
    arch: int
    dtype: torch.dtype
    weight_dtype: torch.dtype
    pattern: Pattern
    rescale: str
    out_features: int
    in_features: int
    weight_columns: int
    aligned: bool

    @property
    def operands(self) -> str:
        """One of `OPERANDS`; of a dtype that is not in it, its name."""
        return OPERANDS.get(self.weight_dtype, _name(self.weight_dtype))

    @property
    def is_8bit(self) -> bool:
        """Whether activations are quantised."""
        return self.operands in ("int8", "e4m3")

    @property
    def is_unpruned(self) -> bool:
        """Whether the pattern keeps everything."""
        return self.pattern.n == self.pattern.m

    @property
    def has_copies(self) -> bool:
        """Whether the weight is as wide as the sparse GEMMs of this pattern need it."""
        return self.weight_columns == widened_features(self.in_features, self.pattern)

    @property
    def table_dtype(self) -> str:
        """The dtypes as tables of measurements name them: ``"bfloat16"``, ``"int8 bfloat16"``."""
        names = dict.fromkeys((_name(self.weight_dtype), _name(self.dtype)))
        return " ".join(names)


@dataclass(frozen=True)
class SparseGemm:
    """A sparse GEMM of this build and what it takes, as csrc/amber/cuda/sparse_gemm/ describes it.

    Attributes:
        arch: whose instructions it is made of, as the library's list names it.
        capabilities: of GPUs that it runs on, each as `Problem.arch`.
        operands: ``"16-bit"``, ``"int8"`` or ``"e4m3"``.
        dtype: of X and Y, ``"bfloat16"`` or ``"float16"``.
        tile: of Y and K that a block computes at a time, M, N and K.
        in_features_multiple: what K must be a multiple of at 2:4, and
        copies_in_features_multiple: at patterns that read copies of the weight's columns.
        max_in_features: the largest K, or None.
        out_features_multiple: what N must be a multiple of.
        rescales: whether ``rescale="variance"`` runs.
    """

    name: str
    arch: int
    capabilities: tuple[int, ...]
    operands: str
    dtype: str
    tile: tuple[int, int, int]
    in_features_multiple: int
    copies_in_features_multiple: int
    max_in_features: int | None
    out_features_multiple: int
    rescales: bool

    @classmethod
    def from_dict(cls, fields: Mapping[str, object]) -> SparseGemm:
        """From the JSON of the op library, or of a results file."""
        return cls(**{**fields, "tile": tuple(fields["tile"]), "capabilities": tuple(fields["capabilities"])})


# The sparse GEMMs of this build; the first that takes a product is the default for it.
SPARSE_GEMMS: tuple[SparseGemm, ...] = ()
if library.LOAD_ERROR is None:
    SPARSE_GEMMS = tuple(
        SparseGemm.from_dict(fields) for fields in json.loads(torch.ops.amber.sparse_gemm_kernels())
    )


def walks_of(gemm: SparseGemm) -> tuple[str, ...]:
    """The names under which this sparse GEMM runs with a walk that is not CUTLASS' choice."""
    return tuple(gemm.name + walk for walk in WALKS) if gemm.arch >= 90 else ()


def without_walk(kernel: str) -> str:
    """The name of a sparse GEMM, with or without a walk behind it."""
    return kernel.partition("@")[0]


def are_aligned(weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """`Problem.aligned`; only sparse GEMMs ask. Compiled code cannot look, and takes them to be; the op looks itself."""
    if torch.compiler.is_compiling():
        return True
    return weight.device.type != "cuda" or all(t is None or _is_aligned(t) for t in (weight, bias))


def arch_of(device: torch.device) -> int:
    """`Problem.arch`."""
    return devices.device_of(device).arch if device.type == "cuda" else 0


def refusal(gemm: SparseGemm, problem: Problem, tokens: int = 1) -> str | None:
    """Why this sparse GEMM cannot run the product of so many tokens, or None.

    The same rule, in the same words, as csrc/amber/cuda/sparse_gemm/refusal.cpp, which the op itself asks; here it can
    be asked while a graph is compiled.
    """
    pattern, extra = problem.pattern, extra_windows(problem.pattern)
    if problem.arch not in gemm.capabilities:
        allowed = ", ".join(map(_capability, gemm.capabilities))
        return f"kernel: '{gemm.name}' does not run on compute capability {_capability(problem.arch)}; allowed: {allowed}"
    if (gemm.operands, gemm.dtype) != (problem.operands, _name(problem.dtype)):
        return (
            f"kernel: '{gemm.name}' does not take {problem.operands} operands and dtype {_name(problem.dtype)}; "
            f"allowed: {gemm.operands} and {gemm.dtype}"
        )
    if extra is None:
        allowed = ", ".join(map(repr, EXTRA_WINDOWS))
        return f"pattern: '{pattern}' does not run on a sparse GEMM; allowed: {allowed}"
    if problem.rescale != "none" and not gemm.rescales:
        return f"rescale: {problem.rescale!r} does not run on a sparse GEMM of {gemm.operands} operands; allowed: 'none'"
    n, k = problem.out_features, problem.in_features
    if tokens == 0 or n == 0:
        return None
    multiple = gemm.copies_in_features_multiple if extra else gemm.in_features_multiple
    if k % multiple:
        return f"x: its last dimension K = {k} is not a multiple of {multiple}, which {gemm.name} needs"
    if gemm.max_in_features is not None and k > gemm.max_in_features:
        return f"x: its last dimension K = {k} is too large; allowed: up to {gemm.max_in_features}"
    if n % gemm.out_features_multiple:
        return (
            f"weight: its first dimension N = {n} is not a multiple of {gemm.out_features_multiple}, which "
            f"{gemm.name} needs"
        )
    if tokens > LARGEST_SIZE:
        return f"x: T = {tokens} tokens are too many; allowed: up to {LARGEST_SIZE}"
    if n > LARGEST_SIZE:
        return f"weight: its first dimension N = {n} is too large; allowed: up to {LARGEST_SIZE}"
    if widened_features(k, pattern) > LARGEST_SIZE:
        return f"x: its last dimension K = {k} is too large; allowed: up to {LARGEST_SIZE}, copies included"
    if not problem.aligned:
        return "weight: it must be contiguous and 16-byte aligned, and so must a bias"
    return None


def refusal_of_all(problem: Problem) -> str | None:
    """Why no sparse GEMM takes a product: the reason of the one that is nearest to it, if it has one."""
    for gemm in SPARSE_GEMMS:
        operands = (gemm.operands, gemm.dtype) == (problem.operands, _name(problem.dtype))
        if operands and problem.arch in gemm.capabilities:
            return refusal(gemm, problem)
    there = sorted({arch for gemm in SPARSE_GEMMS for arch in gemm.capabilities})
    return (
        f"device: for compute capability {_capability(problem.arch)}, {problem.operands} operands and dtype "
        f"{_name(problem.dtype)} this build has no sparse GEMM; it has some for "
        f"{', '.join(map(_capability, there)) or 'no GPU'} (`amber-ext info`)"
    )


def _is_aligned(tensor: torch.Tensor) -> bool:
    # By the offset, which fake tensors know too; allocators align storages to more than 16 bytes.
    return tensor.is_contiguous() and tensor.storage_offset() * tensor.element_size() % 16 == 0


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _capability(arch: int) -> str:
    return f"{arch // 10}.{arch % 10}"
