"""`plan`: which projections run at which pattern, by the paper's rule or for a wanted cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from amber_ext.config import DEFAULT_TARGETS, AmberConfig, check_is_config
from amber_ext.layers.sites import LinearSite, find_linears
from amber_ext.methods.calibration import list_batches
from amber_ext.methods.sparsify import check_config, densify_, refuse_quantized, sparsify_
from amber_ext.ops.pattern import EXTRA_WINDOWS, UNPRUNED, Pattern
from amber_ext.perplexity import mean_loss
from amber_ext.planning.cost_model import relative_cost
from amber_ext.planning.frontier import frontier
from amber_ext.planning.loss_model import Losses, predicted_losses
from amber_ext.planning.paper_rule import check_request, plan_from
from amber_ext.planning.sensitivity import sensitivity

# Every pattern that runs on 2:4 hardware.
PATTERNS = tuple(EXTRA_WINDOWS)


@dataclass(frozen=True)
class FrontierPoint:
    """Cost relative to dense, and the predicted rise of the loss in nats per token."""

    cost: float
    loss: float


@dataclass(frozen=True)
class CostPlan:
    """What `plan_for_cost` chose.

    Attributes:
        cost: of all linear layers in prefill, relative to dense ones.
        predicted_loss: rise of the negative log-likelihood, nats per token, as the loss model adds it up.
        frontier: every point from dense to the cheapest.
        measured: candidate's name to its loss on the batches, nats per token; the best became ``config``.
    """

    config: AmberConfig
    cost: float
    predicted_loss: float
    frontier: tuple[FrontierPoint, ...]
    measured: dict[str, float]


def plan(
    model: torch.nn.Module,
    batches: Iterable[torch.Tensor],
    config: AmberConfig | None = None,
    *,
    coverage: float | None = None,
    skip: int | None = None,
    cost: float | None = None,
    patterns: Sequence[str | Pattern] = PATTERNS,
    progress: bool = False,
) -> AmberConfig:
    """A configuration for this model, by one of three targets.

    Args:
        model: dense or sparsified. With ``cost`` it must be a transformers causal LM, and is dense afterwards.
        batches: token ids, each ``[B, T]`` int64, on the model's device, to calibrate with.
        config: what to start from; its skips and layer patterns are replaced. By default `AmberConfig`'s targets,
            and with ``cost`` every projection.
        coverage: skip as many of the most sensitive layers as leave at least this share of linear
            FLOPs sparse, in (0, 1].
        skip: the paper's rule: q_proj and gate_proj stay dense in this many of the most sensitive layers (arXiv
            2508.02128, section 4).
        cost: the prefill cost of all linear layers relative to dense ones, in (0, 1): `plan_for_cost`.
        patterns: with ``cost``, what to choose from.

    Raises:
        ValueError: a quantised model, no batches, not exactly one target, or one that cannot be met.
        TypeError: batches or config are not such.
    """
    if sum(target is not None for target in (coverage, skip, cost)) != 1:
        raise ValueError("coverage, skip, cost: exactly one of them must be given")
    refuse_quantized(model)
    check_is_config(AmberConfig() if config is None else config)
    if cost is not None:
        return plan_for_cost(model, batches, cost, config, patterns=patterns, progress=progress).config
    config = dataclasses.replace(config or AmberConfig(), skip_layers={}, layer_patterns={})
    check_request(find_linears(model), config, coverage, skip)
    measured = sensitivity(model, batches, config, progress=progress)
    return plan_from(model, measured, config, coverage=coverage, skip=skip)


def plan_for_cost(
    model: torch.nn.Module,
    batches: Iterable[torch.Tensor],
    cost: float,
    config: AmberConfig | None = None,
    *,
    patterns: Sequence[str | Pattern] = PATTERNS,
    progress: bool = False,
) -> CostPlan:
    """The patterns, projection by projection, that lose least at a wanted cost.

    Losses are predicted (`amber_ext.planning.loss_model`), costs are those of `amber_ext.planning.cost_model`. Since losses do not quite
    add up, the plan is measured on ``batches`` beside simpler ones of no higher cost (one pattern on `AmberConfig`'s
    default targets), and the best is taken.

    Args, raises: as `plan`. Fused experts stay dense.
    """
    refuse_quantized(model)
    check_is_config(AmberConfig() if config is None else config)
    batches = list_batches(batches)
    patterns = [Pattern(pattern) for pattern in patterns]
    if not patterns:
        raise ValueError("patterns: it is empty; at least 1 pattern to choose from is needed")
    if not 0 < cost < 1:
        raise ValueError(
            f"cost: {cost} is not allowed; it must be in (0, 1), relative to dense linear layers"
        )
    every = find_linears(model)
    if config is not None:
        check_config(every, dataclasses.replace(config, skip_layers={}, layer_patterns={}))
    sites = _plannable(every, config, patterns)
    total = sum(site.macs for site in every)
    weight = next(model.parameters())

    def cost_of(site: LinearSite, pattern: Pattern) -> float:
        return site.macs / total * relative_cost(site, pattern, weight.device, weight.dtype)

    least = 1 - sum(s.macs / total - min(cost_of(s, p) for p in [*patterns, UNPRUNED]) for s in sites)
    if cost < least:
        raise ValueError(
            f"cost: {cost:g} cannot be reached with these targets and patterns; the least is {least:.4f}"
        )

    base = dataclasses.replace(
        config or AmberConfig(),
        targets=tuple(dict.fromkeys(site.projection for site in sites)),
        skip_layers={},
        layer_patterns={},
    )
    losses = predicted_losses(model, sites, batches, patterns, base, progress=progress)
    steps = frontier(_options(sites, patterns, losses, cost_of))
    points = [FrontierPoint(1.0, 0.0)]
    chosen: dict[str, Pattern] = {}
    for step in steps:
        if points[-1].cost > cost:
            chosen[step.name] = step.choice
        points.append(FrontierPoint(points[-1].cost - step.saved, points[-1].loss + step.added_loss))

    candidates = {"planned": (chosen, _config(base, sites, chosen))}
    for pattern in patterns:
        uniform = {s.name: pattern for s in sites if s.projection in DEFAULT_TARGETS}
        if uniform and 1 - _saved(sites, uniform, cost_of, total) <= cost:
            candidates[f"{pattern} on {', '.join(DEFAULT_TARGETS)}"] = (
                uniform,
                _config(base, sites, uniform),
            )
    measured = _measure(model, batches, {name: c for name, (_, c) in candidates.items()}, progress)
    best = min(measured, key=measured.get)
    assignment, best_config = candidates[best]
    return CostPlan(
        config=best_config,
        cost=1 - _saved(sites, assignment, cost_of, total),
        predicted_loss=sum(losses[name, pattern] for name, pattern in assignment.items()),
        frontier=tuple(points),
        measured=measured,
    )


def _plannable(
    sites: list[LinearSite], config: AmberConfig | None, patterns: list[Pattern]
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


def _options(
    sites, patterns, losses: Losses, cost_of
) -> dict[str, dict[Pattern | None, tuple[float, float]]]:
    """Site to pattern (None: dense) to cost and loss."""
    return {
        site.name: {None: (cost_of(site, UNPRUNED), 0.0)}
        | {pattern: (cost_of(site, pattern), losses[site.name, pattern]) for pattern in patterns}
        for site in sites
    }


def _saved(sites, assignment: dict[str, Pattern], cost_of, total: float) -> float:
    return sum(
        site.macs / total - cost_of(site, assignment[site.name]) for site in sites if site.name in assignment
    )


def _config(base: AmberConfig, sites: list[LinearSite], assignment: dict[str, Pattern]) -> AmberConfig:
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


def _measure(
    model: torch.nn.Module, batches: list[torch.Tensor], configs: dict[str, AmberConfig], progress: bool
) -> dict[str, float]:
    try:
        measured = {}
        for name, config in configs.items():
            sparsify_(model, config)
            measured[name] = mean_loss(model, batches, progress=progress, description=name)
        return measured
    finally:
        densify_(model)
