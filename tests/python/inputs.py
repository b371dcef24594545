"""Inputs that are hard to prune and to quantise."""

import torch


def awkward(shape, dtype, seed=0):
    """Numbers mixed with NaN, Inf, ±0, ties and tiny values."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    specials = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, -1.0, 1e-7, 65504.0])
    pick = torch.randint(0, 2 * len(specials), x.shape, generator=generator)
    x = torch.where(pick < len(specials), specials[pick % len(specials)], x)
    return x.to(dtype)


def awkward_tokens(rows, cols, dtype):
    x = torch.randn(rows, cols).to(dtype)
    x[0] = 0
    x[1, 3] = torch.nan
    x[2, 5] = -torch.inf
    x[3, 7] = 60000  # one huge outlier
    x[4] *= 1e-6
    x[5] = -0.0
    x[6] = torch.where(torch.arange(cols) % 2 == 0, 1.5, -1.5)  # every value is +-127
    return x


def positive(*shape):
    return torch.rand(*shape) + 0.25
