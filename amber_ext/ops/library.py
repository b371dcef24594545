"""Loads the compiled op library, registers the ops' fakes, and forbids backward.

The ops check every argument themselves. Users call `amber_ext.ops.functional` and `amber_ext.ops.quantization`
instead.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from pathlib import Path

import torch
from torch.autograd import forward_ad

from amber_ext.ops.reference import QUANTIZED_DTYPES

LIBRARY = Path(__file__).parents[1] / "libamber_ops.so"

NO_BACKWARD = (
    "amber_ext: backward through an N:M pruned layer is not supported (it is an inference method); "
    "run it under torch.no_grad() or torch.inference_mode()"
)

NO_FORWARD_MODE = (
    "amber_ext: forward-mode differentiation through an N:M pruned layer is not supported (it is an inference method); "
    "run it without tangents"
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


def forbid_backward(ctx: object, *grads: torch.Tensor) -> None:
    """The backward of every op: it raises RuntimeError."""
    raise RuntimeError(NO_BACKWARD)


def one_device(x: torch.Tensor, **others: torch.Tensor | None) -> None:
    """Raises RuntimeError, as the kernels do: with one tensor on the meta device torch runs the fakes, not them."""
    for name, tensor in others.items():
        if tensor is not None and tensor.device != x.device:
            raise RuntimeError(
                f"{name}: it is on {tensor.device} but must be on {x.device}, as the first argument"
            )


def _register() -> None:
    @torch.library.register_fake("amber::nm_mask")
    def _(x, scale, pattern):
        one_device(x, scale=scale)
        return torch.empty(x.shape, dtype=torch.bool, device=x.device)

    @torch.library.register_fake("amber::nm_prune")
    def _(x, scale, pattern, rescale):
        one_device(x, scale=scale)
        return torch.empty(x.shape, dtype=x.dtype, device=x.device)

    @torch.library.register_fake("amber::linear")
    def _(x, weight, bias, scale, pattern, rescale, kernels, thresholds):
        one_device(x, weight=weight, bias=bias, scale=scale)
        return torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device=x.device)

    @torch.library.register_fake("amber::quantize_activations")
    def _(x, smooth, scale, pattern, rescale, dtype):
        one_device(x, smooth=smooth, scale=scale)
        values = torch.empty(x.shape, dtype=QUANTIZED_DTYPES[dtype], device=x.device)
        return values, torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)

    @torch.library.register_fake("amber::dequantize")
    def _(product, token_scale, weight_scale, bias, dtype):
        one_device(product, token_scale=token_scale, weight_scale=weight_scale, bias=bias)
        return torch.empty(product.shape, dtype=getattr(torch, dtype), device=product.device)

    @torch.library.register_fake("amber::scaled_product")
    def _(values, token_scale, weight, weight_scale, bias, dtype):
        one_device(values, token_scale=token_scale, weight=weight, weight_scale=weight_scale, bias=bias)
        shape = (values.shape[0], weight.shape[0])
        return torch.empty(shape, dtype=getattr(torch, dtype), device=values.device)

    @torch.library.register_fake("amber::linear_w8a8")
    def _(x, weight, weight_scale, bias, smooth, scale, pattern, rescale, kernels, thresholds):
        one_device(x, weight=weight, weight_scale=weight_scale, bias=bias, smooth=smooth, scale=scale)
        return torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device=x.device)

    for op in ("nm_prune", "linear", "quantize_activations", "dequantize", "scaled_product", "linear_w8a8"):
        torch.library.register_autograd(f"amber::{op}", forbid_backward)


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


def forbid_tangents(*tensors: torch.Tensor | None) -> None:
    """Raises RuntimeError in forward-mode differentiation (`torch.func.jvp`): ops would answer with tangents of 0."""
    if forward_ad._current_level < 0:
        return
    for tensor in tensors:
        if tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None:
            raise RuntimeError(NO_FORWARD_MODE)


@functools.cache
def build_id() -> str:
    """What tells this build of the op library from every other."""
    return hashlib.sha256(LIBRARY.read_bytes()).hexdigest()[:16] if LIBRARY.exists() else "none"


def environment_info() -> dict[str, object]:
    """Version, torch, op library, CUDA, CUTLASS, CPU capability and kernel catalogue."""
    info: dict[str, object] = {
        "version": _version(),
        "torch": torch.__version__,
        "torch_cuda_available": torch.cuda.is_available(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "op_library": "loaded" if LOAD_ERROR is None else LOAD_ERROR,
    }
    if LOAD_ERROR is not None:
        return {**info, "build": None, "cpu_capability": None, "cpu_int8_product": None, "kernels": []}
    return info | json.loads(torch.ops.amber.build_info())


def _version() -> str:
    try:
        return importlib.metadata.version("amber_ext")
    except importlib.metadata.PackageNotFoundError:
        return "not installed (used from a source tree)"
