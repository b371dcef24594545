"""Dense products: torch's, written into a slice; of int8, exact; and the 8-bit layer around them."""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F

from amber_ext.ops import checks, library

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


# Whether `amber::scaled_product` is the fastest int8 product of this CPU: the scales are in its epilogue. It needs
# AVX-512 VNNI; where there is AMX, torch's product has it and this one has not.
CPU_HAS_SCALED_PRODUCT = (
    library.LOAD_ERROR is None
    and json.loads(torch.ops.amber.build_info())["cpu_int8_product"] == "AVX-512 VNNI"
)


def has_scaled_product(device: torch.device) -> bool:
    """Whether int8 layers run `amber::scaled_product` there; elsewhere `int8_product` and `amber::dequantize`."""
    return device.type == "cpu" and CPU_HAS_SCALED_PRODUCT


def has_fast_int8(device: torch.device) -> bool:
    """Whether `torch._int_mm` runs on int8 instructions there.

    On a CPU without VNNI it is some twenty times slower than fp32; where oneDNN is told not to use VNNI that the CPU
    has, it is wrong: pairs of products saturate at 16 bits.
    """
    return device.type != "cpu" or CPU_HAS_VNNI


def describe_int8_product(device: torch.device) -> str:
    """Which product int8 layers run there."""
    if has_scaled_product(device):
        return "exact int8 products (AVX-512 VNNI)"
    return "torch's int8 product" if has_fast_int8(device) else "exact fp32 products (no VNNI)"


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


def masked_dense_w8a8(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    smooth: torch.Tensor | None,
    scale: torch.Tensor | None,
    pattern: str,
    rescale: str,
) -> torch.Tensor:
    """`linear_w8a8` without a sparse GEMM: prune and quantise, a dense product, scales and bias."""
    out_features, in_features = weight.shape
    dtype = "int8" if weight.dtype == torch.int8 else "e4m3"
    rows = x.reshape(-1, in_features)
    values, token_scale = checks.run(
        torch.ops.amber.quantize_activations, rows, smooth, scale, pattern, rescale, dtype,
        smooth=smooth, scale=scale,
    )  # fmt: skip
    y = product_w8a8(values, token_scale, weight, weight_scale, bias, x.dtype)
    return y.view(*x.shape[:-1], out_features)


def product_w8a8(
    values: torch.Tensor,
    token_scale: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """The dense product of 8-bit values ``[T, K]`` and weight ``[N, K]``, scales and bias: ``[T, N]`` of ``dtype``."""
    if values.dtype == torch.int8 and has_scaled_product(values.device):
        return torch.ops.amber.scaled_product(
            values, token_scale, weight, weight_scale, bias, checks.dtype_name(dtype)
        )
    if values.dtype == torch.int8:
        product = int8_product(values, weight)
        return torch.ops.amber.dequantize(product, token_scale, weight_scale, bias, checks.dtype_name(dtype))
    # Row-wise scales exist for bf16 outputs alone.
    y = torch._scaled_mm(
        values, weight.t(), token_scale.unsqueeze(1), weight_scale.unsqueeze(0), out_dtype=torch.bfloat16
    ).to(dtype)
    return y if bias is None else y + bias


# For the op `linear_w8a8`, which calls this for the numbers of tokens where its plan says so.
if library.LOAD_ERROR is None:
    _library = torch.library.Library("amber", "FRAGMENT")
    _library.define(
        "masked_dense_w8a8(Tensor x, Tensor weight, Tensor weight_scale, Tensor? bias, Tensor? smooth, Tensor? scale, "
        "str pattern, str rescale) -> Tensor"
    )
    _library.impl("masked_dense_w8a8", masked_dense_w8a8, "CompositeExplicitAutograd")
