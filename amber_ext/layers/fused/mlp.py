"""`AmberMLP`: a gated MLP that in prefill prunes the input of its down projection while it makes it."""

from __future__ import annotations

import torch

from amber_ext.families import GATED_MLPS
from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.layers.recast import MixedIn, mixed_class, recast
from amber_ext.ops.fused.silu_mul import silu_mul_linear
from amber_ext.phase import by_phase

_PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}


class AmberMLP(MixedIn):
    """Mixed into the class of a gated MLP (`amber_ext.families.GATED_MLPS`) by `fuse_mlp`.

    The layers inside stay what and where they were, and so do the keys of the ``state_dict``.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``down(silu(gate(x)) · up(x))``: x ``[..., H]`` to ``[..., H]``."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        if not _may_be_passed_by(self.down_proj):
            return self._separate(gate, up)
        return by_phase(self._fused, self._separate, gate, up)

    def _fused(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        down = self.down_proj
        of_prefill = {"dense": False} if isinstance(down, QuantizedLinear) else {}
        return silu_mul_linear(gate, up, **down.call_arguments(gate, **of_prefill))

    def _separate(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(gate) * up)

    def to_separate(self) -> torch.nn.Module:
        """The MLP of its original class, over the same layers."""
        return recast(self, self.original_class())


def is_fusable(module: torch.nn.Module) -> bool:
    """Whether `fuse_mlp` takes this module: a gated MLP with silu, whose down projection is pruned or quantised."""
    if type(module).__name__ not in GATED_MLPS or {name for name, _ in module.named_children()} != _PARTS:
        return False
    is_silu = isinstance(module.act_fn, torch.nn.SiLU) or type(module.act_fn).__name__ == "SiLUActivation"
    return is_silu and "forward" not in module.__dict__ and isinstance(module.down_proj, _LAYERS)


def fuse_mlp(module: torch.nn.Module) -> torch.nn.Module:
    """A fused MLP over the same layers; ``module``, which `is_fusable`, stays as it was."""
    return recast(module, mixed_class(AmberMLP, type(module)))


_LAYERS = (AmberLinear, QuantizedLinear)


def _may_be_passed_by(layer: torch.nn.Module) -> bool:
    """Whether calling a layer is the same as computing its product: no hook, adapter or wrapper wants to see the input."""
    return (
        type(layer) in _LAYERS
        and "forward" not in layer.__dict__
        and not (layer._forward_hooks or layer._forward_pre_hooks)
    )
