"""What the GPU tests share: when they are skipped, operands, and products in fp64."""

import pytest
import torch
import torch.nn.functional as F

import amber_ext
from amber_ext import Pattern
from amber_ext.ops import library, reference


def _reason():
    if library.LOAD_ERROR is not None:
        return f"the op library is {library.LOAD_ERROR}"
    if "cuda" not in library.DEVICES:
        return "the op library was built without CUDA kernels"
    if not torch.cuda.is_available():
        return "no GPU that torch can use"
    return None


needs_gpu = pytest.mark.skipif(_reason() is not None, reason=str(_reason()))
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


WINDOWED = ["4:8", "8:16", "10:16w", "12:16w"]


def awkward(shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    specials = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, -1.0])
    pick = torch.randint(0, 2 * len(specials), x.shape, generator=generator)
    return torch.where(pick < len(specials), specials[pick % len(specials)], x).to(dtype)


def exact(x, weight, bias, scale, pattern="2:4"):
    kept = x.double() * reference.nm_mask(x, Pattern(pattern), scale)
    result = F.linear(kept, weight.double(), None if bias is None else bias.double())
    return result, F.linear(kept.abs(), weight.double().abs()) + 1


SPARSE_DTYPES = [torch.float16, torch.bfloat16]


def w8a8_operands(tokens, k, n, quantized, dtype=torch.bfloat16):
    torch.manual_seed(tokens)
    x = torch.randn(tokens, k, device="cuda", dtype=dtype)
    if tokens > 4:
        x[1], x[2, 3], x[3, 5] = 0, float("nan"), float("inf")
    weight, weight_scale = amber_ext.quantize_weight(torch.randn(n, k, device="cuda", dtype=dtype), quantized)
    factors = {"scale": torch.rand(k, device="cuda") + 0.1, "smooth": torch.rand(k, device="cuda") + 0.1}
    return x, weight, weight_scale, torch.randn(n, device="cuda", dtype=dtype), factors
