"""One pattern for each projection: which may have one, what they save together, the configuration that says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from amber_ext.config import AmberConfig
from amber_ext.layers.sites import LinearSite
from amber_ext.methods.sparsify import densify_, sparsify_
from amber_ext.ops.pattern import Pattern
from amber_ext.perplexity import mean_loss
from amber_ext.planning.allocators.levels import CostOf


def plannable(
    sites: Sequence[LinearSite], config: AmberConfig | None, patterns: Sequence[Pattern]
) -> list[LinearSite]:
    """The projections that may be pruned at any of these patterns."""
    chosen = [
        site
        for site in sites
        if site.obstacle is None
        and not site.is_fused
        and site.layer is not None
        and (config is None or site.projection in config.targets)
        and all(site.in_features % pattern.m == 0 for pattern in patterns)
    ]
    if not chosen:
        raise ValueError("config.targets: none of these projections can be pruned at all of the patterns")
    return chosen


def saved(
    sites: Sequence[LinearSite], assignment: Mapping[str, Pattern], cost_of: CostOf, total: float
) -> float:
    """The share of the model's cost that an assignment saves; ``total`` is its multiply-accumulates."""
    return sum(
        site.macs / total - cost_of(site, assignment[site.name]) for site in sites if site.name in assignment
    )


def config_of(
    base: AmberConfig, sites: Sequence[LinearSite], assignment: Mapping[str, Pattern]
) -> AmberConfig:
    """The commonest pattern for all, the others and the dense projections as exceptions."""
    used = list(assignment.values())
    common = max(dict.fromkeys(used), key=used.count, default=base.pattern)
    targets = (
        tuple(dict.fromkeys(site.projection for site in sites if site.name in assignment)) or base.targets
    )
    skips: dict[str, list[int]] = {}
    exceptions: dict[str, dict[str, list[int]]] = {}
    for site in sites:
        pattern = assignment.get(site.name)
        if site.projection not in targets or pattern == common:
            continue
        if pattern is None:
            skips.setdefault(site.projection, []).append(site.layer)
        else:
            exceptions.setdefault(site.projection, {}).setdefault(str(pattern), []).append(site.layer)
    return dataclasses.replace(
        base, pattern=common, targets=targets, skip_layers=skips, layer_patterns=exceptions
    )


def measured_losses(
    model: torch.nn.Module,
    batches: Sequence[torch.Tensor],
    configs: Mapping[str, AmberConfig],
    progress: bool,
) -> dict[str, float]:
    """Configuration's name to the model's loss with it, nats per token; the model is dense afterwards."""
    try:
        measured = {}
        for name, config in configs.items():
            sparsify_(model, config)
            measured[name] = mean_loss(model, batches, progress=progress, description=name)
        return measured
    finally:
        densify_(model)
