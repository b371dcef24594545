"""Argument checks of the public functions. Messages name the argument, its value, what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import TypeVar

import torch

from amber_ext.ops.pattern import Pattern, widened_features
from amber_ext.ops.reference import QUANTIZED_DTYPES

T = TypeVar("T")

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
RESCALES = ("none", "variance")

INF_BITS = 0x7F800000  # of the fp32 number; those above it are NaN, those with the sign are negative numbers

# Longer sums of 8-bit products could overflow int32.
MAX_IN_FEATURES_8BIT = (2**31 - 1) // 127**2


def one_of(argument: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raises ValueError unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{argument}: {value!r} is not known; allowed: {', '.join(map(repr, allowed))}")


def shown(value: object) -> str:
    """A value as a message shows it: on one line, and not longer than that."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def listed(value: object, kind: type) -> tuple[object, ...] | None:
    """The items of a list, or None where it is no list of that kind; a string, a dict and a bool are none."""
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        return None
    items = tuple(value)
    return items if all(isinstance(i, kind) and not isinstance(i, bool) for i in items) else None


def mapping_of(argument: str, value: object, of: str) -> Mapping[str, object]:
    """``value``. Raises ValueError unless it is a dict with names as keys."""
    if not isinstance(value, Mapping) or listed(value.keys(), str) is None:
        raise ValueError(f"{argument}: {shown(value)} is not allowed; it must be a dict of names to {of}")
    return value


def layer_numbers(argument: str, name: str, ids: object, allowed: str = "layer numbers") -> tuple[int, ...]:
    """Decoder layers, each once and in order. Raises ValueError unless it is a list of whole numbers."""
    numbers = listed(ids, Integral)
    if numbers is None:
        raise ValueError(f"{argument}: {name}: {shown(ids)} is not allowed; it must be a list of {allowed}")
    return tuple(sorted({int(number) for number in numbers}))


def check_tensor(name: str, value: object) -> None:
    """Raises TypeError unless ``value`` is a tensor."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: {type(value).__name__} is not allowed; it must be a torch.Tensor")


def dtype_name(dtype: torch.dtype) -> str:
    """As the ops take it: ``"bfloat16"``."""
    return str(dtype).removeprefix("torch.")


def check_input(x: torch.Tensor, pattern: Pattern, name: str = "x") -> None:
    """x ``[..., K]``: a supported dtype and K a multiple of M."""
    check_tensor(name, x)
    if x.dtype not in DTYPES:
        raise TypeError(f"{name}: dtype {x.dtype} is not supported; allowed: {', '.join(map(str, DTYPES))}")
    if x.dim() == 0:
        raise ValueError(f"{name}: a 0-dimensional tensor has no channels; at least 1 dimension is needed")
    if x.shape[-1] % pattern.m != 0:
        raise ValueError(f"{name}: its last dimension K = {x.shape[-1]} is not a multiple of M = {pattern.m}")


def check_factors(name: str, factors: torch.Tensor | None, x: torch.Tensor) -> None:
    """One factor a channel: fp32 ``[K]`` on x's device. Values: `check_factor_values`."""
    if factors is None:
        return
    check_tensor(name, factors)
    if factors.dtype != torch.float32:
        raise TypeError(f"{name}: dtype {factors.dtype} is not supported; allowed: torch.float32")
    if factors.dim() != 1 or factors.shape[0] != x.shape[-1]:
        raise ValueError(
            f"{name}: shape {list(factors.shape)} does not match x; allowed: [K] = [{x.shape[-1]}]"
        )
    if factors.device != x.device:
        raise ValueError(
            f"{name}: it is on {factors.device} but x is on {x.device}; both must be on one device"
        )


def check_factor_values(name: str, factors: torch.Tensor | None) -> None:
    """Every element finite and > 0.

    Only for eager CPU tensors: reading values would break a compiled graph or synchronise a GPU.
    `channel_scale` makes none that fails.
    """
    if factors is None or factors.device.type != "cpu" or torch.compiler.is_compiling():
        return
    # By their bits: a subnormal factor is > 0, also for a thread that takes it for 0 (torch.set_flush_denormal).
    bits = factors.view(torch.int32)
    bad = ((bits <= 0) | (bits >= INF_BITS)).nonzero()
    if len(bad):
        index = int(bad[0])
        raise ValueError(
            f"{name}: element {index} is {factors[index].item():g}; every element must be finite and > 0"
        )


def run(op: Callable[..., T], *arguments: object, **factors: torch.Tensor | None) -> T:
    """``op(*arguments)``. It looks at the values of ``factors`` itself; torch makes a RuntimeError of what it says.

    Raises:
        ValueError: of `check_factor_values`, as under every other backend.
    """
    try:
        return op(*arguments)
    except RuntimeError:
        for name, values in factors.items():
            check_factor_values(name, values)
        raise


def check_weight_shape(x: torch.Tensor, weight: torch.Tensor, pattern: Pattern) -> None:
    """``[N, K]``, or ``[N, K']`` as `widen_weight` makes it for this pattern."""
    check_tensor("weight", weight)
    in_features, widened = x.shape[-1], widened_features(x.shape[-1], pattern)
    # Not `in`: a compiler's symbolic sizes compare, but do not find themselves in a tuple.
    if weight.dim() != 2 or (weight.shape[1] != in_features and weight.shape[1] != widened):
        wide = f", or [N, {widened}] from widen_weight" if widened not in (None, in_features) else ""
        raise ValueError(
            f"weight: shape {list(weight.shape)} does not match x; allowed: [N, K] with K = {in_features}{wide}"
        )


def check_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, pattern: Pattern) -> None:
    """weight ``[N, K]`` or ``[N, K']`` and bias ``[N]`` that match x ``[..., K]`` in shape, dtype and device."""
    check_weight_shape(x, weight, pattern)
    if bias is not None:
        check_tensor("bias", bias)
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != weight.shape[0]):
        raise ValueError(
            f"bias: shape {list(bias.shape)} does not match weight; allowed: [N] = [{weight.shape[0]}]"
        )
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is None:
            continue
        if tensor.dtype != x.dtype:
            raise TypeError(f"{name}: dtype {tensor.dtype} differs from x's {x.dtype}; they must be equal")
        if tensor.device != x.device:
            raise ValueError(f"{name}: it is on {tensor.device} but x is on {x.device}; use one device")


def check_out(out: torch.Tensor | None, x: torch.Tensor, weight: torch.Tensor) -> None:
    """``[T, N]`` of x's dtype and device for an x ``[T, K]``, or None."""
    if out is None:
        return
    check_tensor("out", out)
    found, wanted = (out.dtype, out.device, tuple(out.shape)), (x.dtype, x.device, (len(x), len(weight)))
    if x.dim() != 2 or found != wanted:
        raise ValueError(
            f"out: {out.dtype} {list(out.shape)} on {out.device} is not allowed for x {list(x.shape)}; it must be "
            f"{x.dtype} [T, N] on {x.device}, with x [T, K]"
        )


def check_linear_w8a8(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None,
    pattern: Pattern,
) -> None:
    """8-bit weight ``[N, K]`` or ``[N, K']``, weight_scale fp32 ``[N]``, bias ``[N]`` of x's dtype, on x's device."""
    check_tensor("weight", weight)
    check_tensor("weight_scale", weight_scale)
    if bias is not None:
        check_tensor("bias", bias)
    if weight.dtype not in QUANTIZED_DTYPES.values():
        allowed = ", ".join(map(str, QUANTIZED_DTYPES.values()))
        raise TypeError(f"weight: dtype {weight.dtype} is not supported; allowed: {allowed}")
    check_weight_shape(x, weight, pattern)
    if x.shape[-1] > MAX_IN_FEATURES_8BIT:
        raise ValueError(
            f"weight: K = {x.shape[-1]} is too large; int32 sums are exact up to {MAX_IN_FEATURES_8BIT}"
        )
    out_features = weight.shape[0]
    if weight_scale.dtype != torch.float32 or tuple(weight_scale.shape) != (out_features,):
        raise ValueError(
            f"weight_scale: {weight_scale.dtype} {list(weight_scale.shape)} is not allowed; it must be "
            f"float32 [{out_features}]"
        )
    if bias is not None and (bias.dtype != x.dtype or tuple(bias.shape) != (out_features,)):
        raise ValueError(
            f"bias: {bias.dtype} {list(bias.shape)} is not allowed; it must be {x.dtype} [{out_features}]"
        )
    for name, tensor in (("weight", weight), ("weight_scale", weight_scale), ("bias", bias)):
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"{name}: it is on {tensor.device} but x is on {x.device}; use one device")
