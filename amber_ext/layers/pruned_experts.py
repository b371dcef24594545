"""Pruned mixture-of-experts layers whose experts transformers keeps as fused 3-D parameters."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from amber_ext.families import EXPERTS
from amber_ext.layers.recast import MixedIn, mixed_class, recast
from amber_ext.ops.functional import linear
from amber_ext.ops.pattern import Pattern
from amber_ext.phase import by_phase


class AmberExperts(MixedIn):
    """Mixed into a supported experts class by `prune_experts`; prunes in prefill.

    Scores are plain magnitudes: tokens are routed dynamically, so the paper does not use the robust
    norm here (arXiv 2508.02128, section 4).
    """

    pattern_of: dict[str, Pattern]  # of the pruned projections
    rescale: str
    backend: str
    allow_unpruned: bool = False

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """hidden_states ``[T, H]``, top_k_index and top_k_weights ``[T, top_k]`` to ``[T, H]``."""
        return by_phase(self._prefill, super().forward, hidden_states, top_k_index, top_k_weights)

    def _prefill(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        return self.gated_experts(hidden_states, top_k_index, top_k_weights, self.pattern_of)

    def gated_experts(
        self,
        hidden_states: torch.Tensor,
        top_k_index: torch.Tensor,
        top_k_weights: torch.Tensor,
        pattern_of: dict[str, Pattern],
    ) -> torch.Tensor:
        """``Σ_e p_e · down(act(gate(x)) · up(x))`` over each token's experts, with pruned inputs."""

        def product(x: torch.Tensor, weight: torch.Tensor, projection: str) -> torch.Tensor:
            pattern = pattern_of.get(projection)
            if pattern is None:
                return F.linear(x, weight)
            options = {
                "rescale": self.rescale,
                "backend": self.backend,
                "allow_unpruned": self.allow_unpruned,
            }
            return linear(x, weight, pattern=pattern, **options)

        output = torch.zeros_like(hidden_states)
        for expert in top_k_index.unique().tolist():
            if expert >= self.num_experts:
                continue  # transformers routes tokens of other ranks to this index
            token, choice = torch.where(top_k_index == expert)
            x = hidden_states[token]
            gate_weight, up_weight = self.gate_up_proj[expert].chunk(2)
            hidden = self.act_fn(product(x, gate_weight, "gate_proj")) * product(x, up_weight, "up_proj")
            y = product(hidden, self.down_proj[expert], "down_proj") * top_k_weights[token, choice, None]
            output.index_add_(0, token, y.to(output.dtype))
        return output

    def to_dense(self) -> torch.nn.Module:
        """The experts module that this was made from, over the same parameters."""
        dense = recast(self, self.original_class())
        for name in ("pattern_of", "rescale", "backend", "allow_unpruned"):
            del dense.__dict__[name]
        return dense


def is_fused_experts(module: torch.nn.Module) -> bool:
    """True for a module that holds its experts' weights as 3-D parameters."""
    return any(
        parameter.dim() == 3 and name in ("gate_up_proj", "gate_proj", "up_proj", "down_proj")
        for name, parameter in module.named_parameters(recurse=False)
    )


def supports(module: torch.nn.Module) -> bool:
    """True when `prune_experts` takes this module."""
    return any(cls.__name__ in EXPERTS for cls in type(module).__mro__)


def expert_shapes(module: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """(out_features, in_features) of one expert's projections.

    For an unsupported class the two may be exchanged; their product is right.
    """
    shapes = {}
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.dim() != 3:
            continue
        rows, cols = parameter.shape[1:]
        if name == "gate_up_proj":
            shapes["gate_proj"] = shapes["up_proj"] = (rows // 2, cols)
        else:
            shapes[name] = (rows, cols)
    return shapes


def prune_experts(
    module: torch.nn.Module,
    pattern_of: dict[str, Pattern],
    rescale: str,
    backend: str,
    allow_unpruned: bool = False,
) -> torch.nn.Module:
    """A pruned experts module over the same parameters; ``module`` stays as it was.

    Args:
        pattern_of: the projections to prune, ``"gate_proj"``, ``"up_proj"`` and ``"down_proj"``, to their patterns.
    """
    new = recast(module, mixed_class(AmberExperts, type(module)))
    new.pattern_of, new.rescale, new.backend = pattern_of, rescale, backend
    new.allow_unpruned = allow_unpruned
    return new
