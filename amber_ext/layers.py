"""Finds the linear layers of a model, fused experts included, and what each costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from amber_ext.amber_linear import AmberLinear
from amber_ext.experts import (
    SUPPORTED_EXPERTS,
    AmberExperts,
    expert_shapes,
    is_fused_experts,
    supports,
)


@dataclass(frozen=True)
class LinearSite:
    """One projection: an ``nn.Linear``, or one projection of a fused experts module.

    Attributes:
        name: the module's full name; for fused experts followed by the projection's.
        module_name: the name of the module that holds it.
        projection: for example ``"q_proj"``.
        layer: the decoder layer's number, None outside numbered layers.
        macs: multiply-accumulates per token; experts count as often as a token visits them.
        is_expert: part of a mixture of experts.
        is_fused: one projection of a fused experts module, not a module of its own.
        obstacle: why this site cannot be pruned, or None.
    """

    name: str
    module_name: str
    projection: str
    layer: int | None
    in_features: int
    out_features: int
    macs: float
    is_expert: bool
    is_fused: bool
    obstacle: str | None


def layer_number(name: str) -> int | None:
    """The first number in a module's name: ``model.layers.3.mlp.gate_proj`` is in layer 3."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def find_linears(model: torch.nn.Module) -> list[LinearSite]:
    """Every linear projection of ``model`` but its output embedding (the vocabulary head).

    Raises:
        ValueError: the model has no linear layers.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    config = getattr(model, "config", None)
    top_k = getattr(config, "num_experts_per_tok", None)
    sites: list[LinearSite] = []
    for name, module in model.named_modules(remove_duplicate=False):
        if not name:
            continue  # the model itself: a lone nn.Linear has no owner to put a replacement into
        if is_fused_experts(module):
            sites += _fused_sites(name, module, top_k)
        elif isinstance(module, torch.nn.Linear) and module is not head:
            sites.append(_linear_site(name, module, config, top_k))
    if not sites:
        raise ValueError(
            f"model: {type(model).__name__} contains no linear layers to prune; at least 1 is needed"
        )
    return sites


def _linear_site(name: str, module: torch.nn.Linear, config: object, top_k: int | None) -> LinearSite:
    is_expert = "experts" in name.split(".")
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    visits = top_k / experts if is_expert and top_k and experts else 1.0
    obstacle = None
    if type(module) not in (torch.nn.Linear, AmberLinear):
        obstacle = f"its class {type(module).__name__} is not nn.Linear"
    elif "forward" in module.__dict__:
        obstacle = (
            "its forward was replaced on the instance (device offloading and tensor parallelism do that)"
        )
    return LinearSite(
        name=name,
        module_name=name,
        projection=name.rpartition(".")[2],
        layer=layer_number(name),
        in_features=module.in_features,
        out_features=module.out_features,
        macs=module.in_features * module.out_features * visits,
        is_expert=is_expert,
        is_fused=False,
        obstacle=obstacle,
    )


def _fused_sites(name: str, module: torch.nn.Module, top_k: int | None) -> list[LinearSite]:
    obstacle = None
    if not supports(module):
        obstacle = (
            f"the fused experts of class {type(module).__name__} cannot be pruned; "
            f"supported: {', '.join(SUPPORTED_EXPERTS)}"
        )
    return [
        LinearSite(
            name=f"{name}.{projection}",
            module_name=name,
            projection=projection,
            layer=layer_number(name),
            in_features=in_features,
            out_features=out_features,
            macs=in_features * out_features * (top_k or 1),
            is_expert=True,
            is_fused=True,
            obstacle=obstacle,
        )
        for projection, (out_features, in_features) in expert_shapes(module).items()
    ]


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
        if isinstance(layer, AmberLinear):
            layer.drop_copies()


def replace_modules(model: torch.nn.Module, replacements: dict[str, torch.nn.Module]) -> None:
    """Puts new modules in the place of those with these full names."""
    for name, new in replacements.items():
        parent, _, attribute = name.rpartition(".")
        owner = model.get_submodule(parent)
        if getattr(owner, attribute) is not new:
            setattr(owner, attribute, new)
