"""Fuses the blocks of a model, and takes fused ones back."""

from __future__ import annotations

import torch

from amber_ext.layers.fused.mlp import AmberMLP, fuse_mlp, is_fusable
from amber_ext.layers.replace import replace_modules


def fuse_blocks(model: torch.nn.Module, fuse: bool | None) -> None:
    """Puts fused blocks in the place of those that can be fused, in place; others that were fused are taken back.

    Args:
        fuse: `AmberConfig.fuse`: None fuses what lies on a GPU.
    """
    made: dict[torch.nn.Module, torch.nn.Module] = {}  # a block that stands in the model twice stays one
    replacements = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if name and module not in made:
            made[module] = _wanted_version(module, fuse)
        if name and made[module] is not module:
            replacements[name] = made[module]
    replace_modules(model, replacements)


def separate_blocks(model: torch.nn.Module) -> None:
    """Undoes `fuse_blocks`."""
    fuse_blocks(model, False)


def _wanted_version(module: torch.nn.Module, fuse: bool | None) -> torch.nn.Module:
    is_fused = isinstance(module, AmberMLP)
    plain = module.to_separate() if is_fused else module
    if not is_fusable(plain):
        return plain
    wanted = plain.down_proj.weight.device.type == "cuda" if fuse is None else fuse
    if wanted:
        return module if is_fused else fuse_mlp(plain)
    return plain
