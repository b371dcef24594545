"""Puts layers in the place of others, and takes pruned ones back."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from amber_ext.layers.pruned_experts import AmberExperts
from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.weight_copies import WeightCopies


def dense_version(module: torch.nn.Module) -> torch.nn.Module:
    """The module without pruning, over the same parameters; itself when it was not pruned."""
    if isinstance(module, AmberLinear):
        return module.to_linear()
    if isinstance(module, AmberExperts):
        return module.to_dense()
    return module


def discard(layers: Iterable[torch.nn.Module]) -> None:
    """Gives the weights back that these new layers share with a model which will not get them."""
    for layer in layers:
        if isinstance(layer, WeightCopies):
            layer.drop_copies()


def replace_modules(model: torch.nn.Module, replacements: dict[str, torch.nn.Module]) -> None:
    """Puts new modules in the place of those with these full names."""
    for name, new in replacements.items():
        parent, _, attribute = name.rpartition(".")
        owner = model.get_submodule(parent)
        if getattr(owner, attribute) is not new:
            # Not by setattr: where a layer is put by others its scores are computed anew (weight_copies.py).
            owner._modules[attribute] = new
