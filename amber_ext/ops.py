"""Loads the compiled op library, registers the ops' fakes, and forbids backward.

The ops check every argument themselves. Users call the functions of `amber_ext.dispatch` and
`amber_ext.dispatch_w8a8` instead.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

from amber_ext.reference_w8a8 import QUANTIZED_DTYPES

LIBRARY = Path(__file__).parent / "libamber_ops.so"

NO_BACKWARD = (
    "amber_ext: backward through an N:M pruned layer is not supported (it is an inference method); "
    "run it under torch.no_grad() or torch.inference_mode()"
)


def _load() -> str | None:
    """Why the library is not there, or None when it is."""
    if not LIBRARY.exists():
        return f"not built ({LIBRARY.name} is missing; install amber_ext with pip from source)"
    try:
        torch.ops.load_library(LIBRARY)
    except OSError as error:
        return f"built, but not loadable under torch {torch.__version__} (2.11 or newer is needed): {error}"
    return None


LOAD_ERROR = _load()


# The device types that the library has kernels for; without a GPU build, "cpu" alone.
DEVICES: frozenset[str] = frozenset()
if LOAD_ERROR is None:
    DEVICES = frozenset(
        key.lower()
        for key in ("CPU", "CUDA")
        if torch._C._dispatch_has_kernel_for_dispatch_key("amber::linear", key)
    )


def _sparse_gemms() -> frozenset[str] | None:
    if importlib.util.find_spec("amber_ext._introspect") is None:
        return None
    from amber_ext import _introspect

    names = (kernel["name"] for kernel in _introspect.kernel_catalogue())
    return frozenset(name.removeprefix("sparse_gemm ") for name in names if name.startswith("sparse_gemm "))


# Names of the sparse GEMMs of this build; None when the introspection module is not there to tell.
SPARSE_GEMMS: frozenset[str] | None = _sparse_gemms()


def _forbid_backward(ctx: object, *grads: torch.Tensor) -> None:
    raise RuntimeError(NO_BACKWARD)


def _register() -> None:
    @torch.library.register_fake("amber::nm_mask")
    def _(x, scale, pattern):
        return torch.empty(x.shape, dtype=torch.bool, device=x.device)

    @torch.library.register_fake("amber::nm_prune")
    def _(x, scale, pattern, rescale):
        return torch.empty(x.shape, dtype=x.dtype, device=x.device)

    @torch.library.register_fake("amber::linear")
    def _(x, weight, bias, scale, pattern, rescale, kernel):
        return torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device=x.device)

    @torch.library.register_fake("amber::quantize_activations")
    def _(x, smooth, scale, pattern, rescale, dtype):
        values = torch.empty(x.shape, dtype=QUANTIZED_DTYPES[dtype], device=x.device)
        return values, torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)

    @torch.library.register_fake("amber::dequantize")
    def _(product, token_scale, weight_scale, bias, dtype):
        return torch.empty(product.shape, dtype=getattr(torch, dtype), device=product.device)

    @torch.library.register_fake("amber::sparse_linear_w8a8")
    def _(x, weight, weight_scale, bias, smooth, scale, pattern, rescale, kernel):
        return torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device=x.device)

    for op in ("nm_prune", "linear", "quantize_activations", "dequantize", "sparse_linear_w8a8"):
        torch.library.register_autograd(f"amber::{op}", _forbid_backward)


if LOAD_ERROR is None:
    _register()


class ForbidBackward(torch.autograd.Function):
    """Runs a reference function so that a backward raises, as it does for the compiled ops."""

    @staticmethod
    def forward(ctx, function, *arguments):
        return function(*arguments)

    @staticmethod
    def backward(ctx, *grads):
        raise RuntimeError(NO_BACKWARD)
