"""What is no tensor where one is needed: a TypeError that names the argument, in one line."""

import numpy
import pytest
import torch

from amber_ext import (
    channel_scale,
    linear,
    linear_w8a8,
    nm_mask,
    nm_prune,
    quantize_activations,
    quantize_weight,
    widen_weight,
)

X, W, W8, SCALES = torch.randn(2, 16), torch.randn(8, 16), torch.ones(8, 16, dtype=torch.int8), torch.ones(8)

CALLS = [
    ("x", lambda value: nm_mask(value, "2:4")),
    ("scale", lambda value: nm_mask(X, "2:4", value)),
    ("scale", lambda value: nm_prune(X, "2:4", value)),
    ("scale", lambda value: linear(X, W, pattern="2:4", scale=value)),
    ("scale", lambda value: quantize_activations(X, "2:4", scale=value)),
    ("smooth", lambda value: quantize_activations(X, "2:4", smooth=value)),
    ("smooth", lambda value: linear_w8a8(X, W8, SCALES, pattern="2:4", smooth=value)),
    ("bias", lambda value: linear(X, W, value, pattern="2:4")),
    ("bias", lambda value: linear_w8a8(X, W8, SCALES, value, pattern="2:4")),
    ("weight", lambda value: linear(X, value, pattern="2:4")),
    ("weight", lambda value: linear_w8a8(X, value, SCALES, pattern="2:4")),
    ("weight", lambda value: channel_scale(value, "wanda")),
    ("weight", lambda value: quantize_weight(value)),
    ("weight", lambda value: widen_weight(value, "8:16")),
    ("weight_scale", lambda value: linear_w8a8(X, W8, value, pattern="2:4")),
]


@pytest.mark.parametrize("value", [[1.0], 0.5, numpy.ones(16, dtype=numpy.float32), None])
@pytest.mark.parametrize("name, call", CALLS)
def test_no_tensor(name, call, value):
    if value is None and name in ("scale", "smooth", "bias"):
        return  # they may be left out
    with pytest.raises(TypeError) as error:
        call(value)
    assert str(error.value) == f"{name}: {type(value).__name__} is not allowed; it must be a torch.Tensor"
