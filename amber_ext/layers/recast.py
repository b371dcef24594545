"""Changes a module's class without touching the module."""

from __future__ import annotations

import copy

import torch


def recast(module: torch.nn.Module, cls: type) -> torch.nn.Module:
    """A shallow copy of ``module`` as a ``cls``: the same parameters and hooks, its own registries."""
    new = copy.copy(module)
    new.__class__ = cls
    for registry in ("_parameters", "_buffers", "_modules"):
        new.__dict__[registry] = dict(module.__dict__[registry])
    new._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
    return new
