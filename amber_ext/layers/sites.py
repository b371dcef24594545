"""The linear layers of a model, fused experts included: what each costs, and what a configuration does to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from amber_ext.config import AmberConfig
from amber_ext.families import EXPERTS, READ_PAST_LAYER
from amber_ext.layers.pruned_experts import expert_shapes, is_fused_experts, supports
from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.ops.pattern import Pattern
from amber_ext.ops.scores import MAGNITUDE


@dataclass(frozen=True)
class LinearSite:
    """One projection: an ``nn.Linear``, a quantised one, or one projection of a fused experts module.

    Attributes:
        name: the module's full name; for fused experts followed by the projection's.
        module_name: the name of the module that holds it.
        projection: for example ``"q_proj"``.
        layer: the decoder layer's number, None outside numbered layers.
        macs: multiply-accumulates per token; experts count as often as a token visits them.
        is_expert: part of a mixture of experts.
        is_fused: one projection of a fused experts module, not a module of its own.
        is_read: its owner is known to read its weight past it (`READ_PAST_LAYER`).
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
    is_read: bool
    obstacle: str | None


def layer_number(name: str) -> int | None:
    """The first number in a module's name: ``model.layers.3.mlp.gate_proj`` is in layer 3."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def quantized_layer(model: torch.nn.Module) -> str | None:
    """The first layer of ``model`` whose weight is quantised, by `quantize_` or by another library; None without one."""
    for name, module in model.named_modules():
        if _is_quantized(module):
            weight = getattr(module, "weight", None)
            dtype = (
                f" of {str(weight.dtype).removeprefix('torch.')}" if isinstance(weight, torch.Tensor) else ""
            )
            return f"'{name}' is a {type(module).__name__}{dtype}"
    return None


# Classes whose weight is packed away, or becomes 8-bit only on a GPU.
_QUANTIZED_MODULES = ("torch.ao.nn.quantized", "bitsandbytes.nn")
# What such layers of other libraries call their weight where it is not "weight": GPTQ and AWQ; compressed-tensors.
_PACKED_WEIGHTS = ("qweight", "weight_packed")


def _is_quantized(module: torch.nn.Module) -> bool:
    if isinstance(module, QuantizedLinear) or type(module).__module__.startswith(_QUANTIZED_MODULES):
        return True
    tensors = {**module._parameters, **module._buffers}
    if any(name in tensors for name in _PACKED_WEIGHTS):
        return True
    weight = tensors.get("weight")
    if weight is None:
        return False
    narrow = weight.dtype.itemsize == 1 and weight.dtype != torch.bool
    # torchao's tensors say that they are of the dtype that they were made from.
    return narrow or weight.is_quantized or type(weight).__module__.startswith("torchao")


class _Part(Protocol):
    macs: float
    sparse: bool


def coverage(parts: Iterable[_Part]) -> float:
    """The share of linear-layer FLOPs that run sparse in prefill, the vocabulary head left out."""
    parts = list(parts)
    return sum(part.macs for part in parts if part.sparse) / sum(part.macs for part in parts)


@dataclass(frozen=True)
class SiteDecision:
    """What a configuration does to one projection.

    Attributes:
        pattern: None where it stays dense.
        score: what its channels are ranked by where it is pruned.
        reason: why it is pruned or not.
    """

    pattern: Pattern | None
    score: str
    macs: float
    reason: str

    @property
    def sparse(self) -> bool:
        """Whether its input is pruned in prefill."""
        return self.pattern is not None


def decide(site: LinearSite, config: AmberConfig) -> SiteDecision:
    """Whether ``config`` prunes this site, and why or why not."""
    score = score_for(site, config)
    pattern, reason = decide_projection(config, site.projection, site.layer, site.in_features, site.obstacle)
    return SiteDecision(pattern, score, site.macs, reason if pattern is None else f"{pattern} {score}")


def decide_projection(
    config: AmberConfig, projection: str, layer: int | None, in_features: int, obstacle: str | None = None
) -> tuple[Pattern | None, str]:
    """The pattern that ``config`` gives to a projection, or None and why it stays dense."""
    pattern = config.pattern_of(projection, layer)
    if projection not in config.targets:
        return None, "not a target"
    if layer in config.skip_layers.get(projection, ()):
        return None, "skipped layer"
    if obstacle is not None:
        return None, obstacle
    if in_features % pattern.m != 0:
        return None, f"K = {in_features} is not a multiple of M = {pattern.m}"
    return pattern, str(pattern)


def score_for(site: LinearSite, config: AmberConfig) -> str:
    """The score that ``config`` gives to this site."""
    # Tokens are routed to experts dynamically; the paper uses plain magnitudes there (section 4).
    return MAGNITUDE if site.is_expert else score_of_projection(config, site.projection)


def score_of_projection(config: AmberConfig, projection: str) -> str:
    """The score that ``config`` gives to a projection outside experts."""
    return config.projection_scores.get(projection, config.score)


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
        elif isinstance(module, torch.nn.Linear | QuantizedLinear) and module is not head:
            owner = model.get_submodule(name.rpartition(".")[0])
            sites.append(_linear_site(name, module, owner, config, top_k))
    if not sites:
        raise ValueError(
            f"model: {type(model).__name__} contains no linear layers to prune; at least 1 is needed"
        )
    return sites


def _linear_site(
    name: str, module: torch.nn.Module, owner: torch.nn.Module, config: object, top_k: int | None
) -> LinearSite:
    projection = name.rpartition(".")[2]
    reader = _reader(owner, projection)
    is_expert = "experts" in name.split(".")
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    visits = top_k / experts if is_expert and top_k and experts else 1.0
    obstacle = None
    if isinstance(module, QuantizedLinear):
        obstacle = "it is quantised"
    elif type(module) not in (torch.nn.Linear, AmberLinear):
        obstacle = f"its class {type(module).__name__} is not nn.Linear"
    elif "forward" in module.__dict__:
        obstacle = (
            "its forward was replaced on the instance (device offloading and tensor parallelism do that)"
        )
    elif reader is not None:
        obstacle = f"{reader} reads its weight past it"
    return LinearSite(
        name=name,
        module_name=name,
        projection=projection,
        layer=layer_number(name),
        in_features=module.in_features,
        out_features=module.out_features,
        macs=module.in_features * module.out_features * visits,
        is_expert=is_expert,
        is_fused=False,
        is_read=reader is not None,
        obstacle=obstacle,
    )


def _reader(owner: torch.nn.Module, projection: str) -> str | None:
    """The class by which ``owner`` reads the weight of this linear of its own past it, or None."""
    names = (kind.__name__ for kind in type(owner).__mro__)
    return next((name for name in names if projection in READ_PAST_LAYER.get(name, ())), None)


def _fused_sites(name: str, module: torch.nn.Module, top_k: int | None) -> list[LinearSite]:
    obstacle = None
    if not supports(module):
        obstacle = (
            f"the fused experts of class {type(module).__name__} cannot be pruned; "
            f"supported: {', '.join(EXPERTS)}"
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
            is_read=False,
            obstacle=obstacle,
        )
        for projection, (out_features, in_features) in expert_shapes(module).items()
    ]
