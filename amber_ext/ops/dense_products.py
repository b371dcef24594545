"""Torch's dense products as amber_ext needs them: written into a slice; of int8, exact, int32 out."""

from __future__ import annotations

import torch
import torch.nn.functional as F

# fp32 sums of this many products of 8-bit integers are exact: 1024 * 127 * 128 < 2**24.
EXACT_K = 1024

# What torch._int_mm needs on CUDA.
CUDA_MIN_TOKENS = 17
CUDA_MULTIPLE = 8


def _int_mm_is_exact() -> bool:
    """Whether oneDNN's 8-bit instructions are those that do not saturate: ONEDNN_MAX_CPU_ISA may forbid them."""
    largest = torch.full((32, 64), 127, dtype=torch.int8, device="cpu")
    return bool((torch._int_mm(largest, largest.t()) == 64 * 127 * 127).all())


# Asked once: a call would break a compiled graph.
CPU_HAS_VNNI = torch.cpu._is_vnni_supported() and _int_mm_is_exact()


def has_fast_int8(device: torch.device) -> bool:
    """Whether `torch._int_mm` runs on int8 instructions there.

    On a CPU without VNNI it is some twenty times slower than fp32; where oneDNN is told not to use VNNI that the CPU
    has, it is wrong: pairs of products saturate at 16 bits.
    """
    return device.type != "cpu" or CPU_HAS_VNNI


def int8_product(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``values [T, K] weightᵀ [K, N]``, both int8, as int32 ``[T, N]``; T, K and N are 1 or more."""
    # oneDNN refuses K = 1 and torch does not notice: the result stays uninitialised (pytorch issue 195066).
    refused = values.device.type == "cpu" and values.shape[1] == 1
    if refused or not has_fast_int8(values.device):
        return product_in_exact_floats(values, weight)
    tokens = values.shape[0]
    if values.device.type == "cuda" and tokens < CUDA_MIN_TOKENS:
        values = F.pad(values, (0, 0, 0, CUDA_MIN_TOKENS - tokens))
    return torch._int_mm(values, weight.t()).narrow(0, 0, tokens)


def product_in_exact_floats(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The same with fp32 products, over so few columns at a time that no sum is ever rounded."""
    total = None
    for x, w in zip(values.split(EXACT_K, 1), weight.split(EXACT_K, 1), strict=True):
        part = (x.float() @ w.float().t()).to(torch.int32)
        total = part if total is None else total.add_(part)
    return total


def dense_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor | None
) -> torch.Tensor:
    """`F.linear`; x is ``[T, K]`` where it writes into ``out`` ``[T, N]``, which may be a slice of columns."""
    if out is None:
        return F.linear(x, weight, bias)
    if bias is None:
        return torch.mm(x, weight.t(), out=out)
    return torch.addmm(bias, x, weight.t(), out=out)
