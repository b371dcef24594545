"""How much each layer's output suffers when its input is pruned."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from amber_ext.config import AmberConfig, check_is_config
from amber_ext.layers.pruned_experts import AmberExperts, is_fused_experts, prune_experts
from amber_ext.layers.replace import dense_version
from amber_ext.layers.sites import LinearSite, find_linears, score_for
from amber_ext.methods.calibration import list_batches
from amber_ext.methods.sparsify import refuse_quantized
from amber_ext.ops.functional import nm_prune
from amber_ext.ops.scores import selection_scale
from amber_ext.phase import decode
from amber_ext.progress import progress_bar

EPSILON = 1e-12


@dataclass(frozen=True)
class LayerSensitivity:
    """``e_q`` of one projection: the relative error of its output when its input is pruned."""

    name: str
    projection: str
    layer: int | None
    error: float


class _Errors:
    """Accumulates ``‖Y − Y'‖² `` and ``‖Y‖²`` of one projection over all calibration tokens."""

    def __init__(self) -> None:
        self.difference = 0.0
        self.norm = 0.0

    def add(self, dense: torch.Tensor, pruned: torch.Tensor) -> None:
        self.difference += float((dense.float() - pruned.float()).square().sum(dtype=torch.float64))
        self.norm += float(dense.float().square().sum(dtype=torch.float64))

    @property
    def relative(self) -> float:
        return self.difference**0.5 / (self.norm**0.5 + EPSILON)


def sensitivity(
    model: torch.nn.Module,
    batches: Iterable[torch.Tensor],
    config: AmberConfig,
    *,
    progress: bool = False,
) -> list[LayerSensitivity]:
    """``e_q = ‖Y − Y'‖₂ / (‖Y‖₂ + ε)`` of every projection (arXiv 2508.02128, section 3).

    The model runs dense; each layer is pruned on its own, from dense inputs. Targets and skips of
    ``config`` do not matter: all projections whose K is a multiple of M are measured. For fused
    experts Y is the output of the whole experts module.

    Args:
        model: dense or sparsified; it is not changed.
        batches: token ids, each ``[B, T]`` int64, on the model's device.
        config: pattern, score and rescale to measure with.
        progress: show a progress bar over the batches.

    Raises:
        ValueError: no linear layers, a quantised model, no batches, or weights or outputs with NaN or Inf.
        TypeError: batches or config are not such.
    """
    refuse_quantized(model)
    check_is_config(config)
    batches = list_batches(batches)
    m = config.pattern.m
    measured = [s for s in find_linears(model) if s.obstacle is None and s.in_features % m == 0]
    errors = {site.name: _Errors() for site in measured}
    handles = []
    try:
        for module_name in dict.fromkeys(site.module_name for site in measured):
            sites = [site for site in measured if site.module_name == module_name]
            module = model.get_submodule(module_name)
            make_hook = _experts_hook if is_fused_experts(module) else _linear_hook
            handles.append(module.register_forward_hook(make_hook(module, sites, errors, config)))
        with torch.inference_mode(), decode():
            for batch in progress_bar(batches, "Measuring sensitivity", progress):
                model(batch)
    finally:
        for handle in handles:
            handle.remove()
    for name, error in errors.items():
        if not math.isfinite(error.relative):
            raise ValueError(
                f"batches: the output of the layer '{name}' has NaN or Inf for them; it must be finite to compare"
            )
    return [
        LayerSensitivity(site.name, site.projection, site.layer, errors[site.name].relative)
        for site in measured
    ]


def _linear_hook(
    module: torch.nn.Linear, sites: list[LinearSite], errors: dict[str, _Errors], config: AmberConfig
):
    (site,) = sites
    scale = selection_scale(module.weight, score_for(site, config))

    def hook(module: torch.nn.Linear, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        pruned = nm_prune(args[0], config.pattern, scale, config.rescale)
        errors[site.name].add(output, F.linear(pruned, module.weight, module.bias))

    return hook


def _experts_hook(
    module: torch.nn.Module, sites: list[LinearSite], errors: dict[str, _Errors], config: AmberConfig
):
    experts: AmberExperts = prune_experts(dense_version(module), {}, config.rescale, "auto")

    def hook(module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        for site in sites:
            errors[site.name].add(output, experts.gated_experts(*args, {site.projection: config.pattern}))

    return hook
