"""How much each layer suffers from pruning, and which layers to leave dense for a wanted coverage."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from amber_ext.config import AmberConfig
from amber_ext.dispatch import nm_prune
from amber_ext.experts import AmberExperts, is_fused_experts, prune_experts
from amber_ext.layers import LinearSite, dense_version, find_linears
from amber_ext.phase import decode
from amber_ext.progress import progress_bar
from amber_ext.scoring import channel_scale
from amber_ext.sparsify import check_config, decide, score_for

EPSILON = 1e-12

# The projections that the paper's rule leaves dense in the most sensitive layers; the other targets
# are pruned everywhere (arXiv 2508.02128, section 4).
SKIPPABLE = ("q_proj", "gate_proj")


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
        ValueError: no linear layers, no batches, or a weight with NaN or Inf.
    """
    batches = list(batches)
    if not batches:
        raise ValueError("batches: it is empty; at least 1 batch of token ids [B, T] is needed")
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
    return [
        LayerSensitivity(site.name, site.projection, site.layer, errors[site.name].relative)
        for site in measured
    ]


def _linear_hook(
    module: torch.nn.Linear, sites: list[LinearSite], errors: dict[str, _Errors], config: AmberConfig
):
    (site,) = sites
    scale = None
    if (score := score_for(site, config)) != "magnitude":
        scale = channel_scale(module.weight, score)

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


def plan_from(
    model: torch.nn.Module,
    measured: list[LayerSensitivity],
    config: AmberConfig,
    *,
    coverage: float | None = None,
    skip: int | None = None,
) -> AmberConfig:
    """Chooses in which layers q_proj and gate_proj stay dense (arXiv 2508.02128, section 4).

    Layers are ranked by the mean ``e_q`` of their targeted q_proj and gate_proj.

    Args:
        measured: of `sensitivity`.
        config: what to start from; its skips and layer patterns are replaced.
        coverage, skip: as for `amber_ext.planner.plan`; exactly one of them.

    Raises:
        ValueError: the arguments are not as above, or the coverage cannot be reached.
    """
    config = dataclasses.replace(config, skip_layers={}, layer_patterns={})
    sites = find_linears(model)
    check_request(sites, config, coverage, skip)
    projections = _skippable(config)
    by_layer: dict[int, list[float]] = {}
    for entry in measured:
        if entry.projection in projections and entry.layer is not None:
            by_layer.setdefault(entry.layer, []).append(entry.error)
    order = sorted(by_layer, key=lambda layer: -sum(by_layer[layer]) / len(by_layer[layer]))

    def with_skips(count: int) -> AmberConfig:
        layers = tuple(order[:count])
        return dataclasses.replace(config, skip_layers={p: layers for p in projections} if layers else {})

    if skip is not None:
        return with_skips(skip)
    count = 0
    while count < len(order) and planned_coverage(sites, with_skips(count + 1)) >= coverage:
        count += 1
    return with_skips(count)


def _skippable(config: AmberConfig) -> list[str]:
    return [projection for projection in SKIPPABLE if projection in config.targets]


def check_request(
    sites: list[LinearSite], config: AmberConfig, coverage: float | None, skip: int | None
) -> None:
    """Before the measurement, which takes long."""
    if (coverage is None) == (skip is None):
        raise ValueError("coverage, skip: exactly one of the two must be given")
    check_config(sites, config)
    layers = {s.layer for s in sites if s.projection in _skippable(config) and s.layer is not None}
    if not layers:
        raise ValueError(
            f"config.targets: {', '.join(config.targets)} has no {' or '.join(SKIPPABLE)} in numbered layers"
        )
    if skip is not None and not 0 <= skip <= len(layers):
        raise ValueError(f"skip: {skip} is not allowed; this model allows 0 to {len(layers)} layers")
    if coverage is not None:
        if not 0 < coverage <= 1:
            raise ValueError(f"coverage: {coverage} is not allowed; it must be in (0, 1]")
        reachable = planned_coverage(sites, config)
        if coverage > reachable:
            raise ValueError(
                f"coverage: {coverage:.1%} cannot be reached; without skips it is {reachable:.1%}"
            )


def planned_coverage(sites: list[LinearSite], config: AmberConfig) -> float:
    """The coverage that `sparsify_` would report, without touching the model."""
    return sum(s.macs for s in sites if decide(s, config).sparse) / sum(s.macs for s in sites)
