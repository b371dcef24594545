"""`plan`: which projections run at which pattern, by the paper's rule or for a wanted cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from amber_ext.config import DEFAULT_TARGETS, AmberConfig, OutstandingSparseConfig, check_is_config
from amber_ext.layers.sites import LinearSite, find_linears
from amber_ext.methods.calibration import list_batches
from amber_ext.methods.sparsify import check_config, densify_, refuse_quantized
from amber_ext.ops.checks import one_of
from amber_ext.ops.pattern import EXTRA_WINDOWS, UNPRUNED, Pattern
from amber_ext.planning.allocators.acttail import acttail_patterns, tail_exponent
from amber_ext.planning.allocators.levels import CostOf
from amber_ext.planning.allocators.teal import teal_patterns
from amber_ext.planning.assignments import config_of, measured_losses, plannable, saved
from amber_ext.planning.cost_model import relative_cost
from amber_ext.planning.frontier import frontier
from amber_ext.planning.loss_model import Losses, predicted_losses
from amber_ext.planning.paper_rule import check_request, plan_from
from amber_ext.planning.quantization_rule import plan_unquantized
from amber_ext.planning.sensitivity import sensitivity

# Every pattern that runs on 2:4 hardware.
PATTERNS = tuple(EXTRA_WINDOWS)

# How patterns are chosen for a cost: by predicted losses (`amber_ext.planning.loss_model`), by TEAL's rule, or by the tails
# of the weights' spectra (`amber_ext.planning.allocators`).
ALLOCATORS = ("fisher", "teal", "acttail")


@dataclass(frozen=True)
class FrontierPoint:
    """Cost relative to dense, and the predicted rise of the loss in nats per token."""

    cost: float
    loss: float


@dataclass(frozen=True)
class CostPlan:
    """What `plan_for_cost` chose.

    Attributes:
        planned: what the allocator chose.
        cost: of all linear layers in prefill with ``config``, relative to dense ones.
        predicted_loss: rise of the negative log-likelihood, nats per token, as the loss model adds it up; None with an
            allocator that predicts none.
        frontier: every point from dense to the cheapest; empty with such an allocator.
        measured: candidate's name to its loss on the batches, nats per token; the best became ``config``.
    """

    config: AmberConfig
    planned: AmberConfig
    cost: float
    predicted_loss: float | None
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
    allocator: str = "fisher",
    quantization_loss: float | None = None,
    progress: bool = False,
) -> AmberConfig:
    """A configuration for this model, by one of three targets, and what to leave unquantised.

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
        allocator: with ``cost``, one of `ALLOCATORS`.
        quantization_loss: with an `OutstandingSparseConfig`: as many projections are left unquantised that quantising the
            others is predicted to cost this at most, nats per token (`amber_ext.planning.quantization_rule`). Without
            another target, what is pruned stays as it is in ``config``.

    Raises:
        ValueError: a quantised model, no batches, not exactly one target, or one that cannot be met.
        TypeError: batches or config are not such.
    """
    targets = sum(target is not None for target in (coverage, skip, cost))
    if quantization_loss is not None and targets < 2:
        batches = list_batches(batches)
        config = OutstandingSparseConfig() if config is None else config
        config = plan_unquantized(model, batches, config, quantization_loss, progress=progress)
        if targets == 0:
            return config
    if targets != 1:
        raise ValueError("coverage, skip, cost: exactly one of them must be given")
    refuse_quantized(model)
    check_is_config(AmberConfig() if config is None else config)
    if cost is not None:
        how = {"patterns": patterns, "allocator": allocator, "progress": progress}
        return plan_for_cost(model, batches, cost, config, **how).config
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
    allocator: str = "fisher",
    progress: bool = False,
) -> CostPlan:
    """The patterns, projection by projection, that lose least at a wanted cost.

    Costs are those of `amber_ext.planning.cost_model`; what is lost is up to the allocator. Since losses do not quite add
    up, the plan is measured on ``batches`` beside simpler ones of no higher cost (one pattern on `AmberConfig`'s default
    targets), and the best is taken.

    Args, raises: as `plan`. Fused experts stay dense.
    """
    refuse_quantized(model)
    one_of("allocator", allocator, ALLOCATORS)
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
    sites = plannable(every, config, patterns)
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
    losses: Losses = {}
    points: tuple[FrontierPoint, ...] = ()
    if allocator == "fisher":
        losses = predicted_losses(model, sites, batches, patterns, base, progress=progress)
        chosen, points = _along_frontier(_options(sites, patterns, losses, cost_of), cost)
    elif allocator == "teal":
        densify_(model)  # decoder layers run by themselves, in prefill
        chosen = teal_patterns(model, sites, batches, patterns, base, cost_of, 1 - cost, progress=progress)
    else:
        exponents = {s.name: tail_exponent(model.get_submodule(s.module_name).weight) for s in sites}
        chosen = acttail_patterns(exponents, sites, patterns, cost_of, 1 - cost)

    candidates = {"planned": (chosen, config_of(base, sites, chosen))}
    for pattern in patterns:
        uniform = {s.name: pattern for s in sites if s.projection in DEFAULT_TARGETS}
        if uniform and 1 - saved(sites, uniform, cost_of, total) <= cost:
            candidates[f"{pattern} on {', '.join(DEFAULT_TARGETS)}"] = (
                uniform,
                config_of(base, sites, uniform),
            )
    measured = measured_losses(model, batches, {name: c for name, (_, c) in candidates.items()}, progress)
    best = min(measured, key=measured.get)
    assignment, best_config = candidates[best]
    return CostPlan(
        config=best_config,
        planned=candidates["planned"][1],
        cost=1 - saved(sites, assignment, cost_of, total),
        predicted_loss=sum(losses[pair] for pair in assignment.items()) if losses else None,
        frontier=points,
        measured=measured,
    )


def _along_frontier(
    options: dict[str, dict[Pattern | None, tuple[float, float]]], cost: float
) -> tuple[dict[str, Pattern], tuple[FrontierPoint, ...]]:
    """The first choices along the frontier that cost no more, and the whole of it."""
    points = [FrontierPoint(1.0, 0.0)]
    chosen: dict[str, Pattern] = {}
    for step in frontier(options):
        if points[-1].cost > cost:
            chosen[step.name] = step.choice
        points.append(FrontierPoint(points[-1].cost - step.saved, points[-1].loss + step.added_loss))
    return chosen, tuple(points)


def _options(
    sites: Sequence[LinearSite], patterns: Sequence[Pattern], losses: Losses, cost_of: CostOf
) -> dict[str, dict[Pattern | None, tuple[float, float]]]:
    """Site to pattern (None: dense) to cost and loss."""
    return {
        site.name: {None: (cost_of(site, UNPRUNED), 0.0)}
        | {pattern: (cost_of(site, pattern), losses[site.name, pattern]) for pattern in patterns}
        for site in sites
    }
