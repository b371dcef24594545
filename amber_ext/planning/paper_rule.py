"""The paper's rule: q_proj and gate_proj stay dense in the most sensitive layers (arXiv 2508.02128, section 4)."""

from __future__ import annotations

import dataclasses

import torch

from amber_ext.config import AmberConfig
from amber_ext.layers.sites import LinearSite, decide, find_linears
from amber_ext.layers.sites import coverage as coverage_of
from amber_ext.methods.sparsify import check_config
from amber_ext.planning.sensitivity import LayerSensitivity

# The projections that the rule leaves dense in those layers; the other targets are pruned everywhere.
SKIPPABLE = ("q_proj", "gate_proj")


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
        coverage, skip: as for `plan`; exactly one of them.

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
    return coverage_of(decide(site, config) for site in sites)
