"""Which projections to leave unquantised (arXiv 2508.02128, section 3, leaves some; its rule is not given).

The loss model of `amber_ext.planning.loss_model`, with the noise of quantisation in the place of pruning's: to second order
quantising a projection alone costs ``½ E[(g_t · ΔY_t)²]`` nats per token, where ΔY is what W8A8 does to its output. Costs of
projections add up, and errors at different tokens are taken as independent. A weight's error is the same at every token,
though, and where attention averages it (v, o) it may cost a few times what is predicted.

The rule leaves projections in 16 bits, those first that cost most for each multiply-accumulate, until what the others cost
together is within a budget.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F

from amber_ext.config import OutstandingSparseConfig, check_is_config
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.layers.sites import LinearSite, find_linears
from amber_ext.methods.calibration import calibrate, list_batches
from amber_ext.methods.sparsify import refuse_quantized
from amber_ext.ops.quantization import smoothing_factor
from amber_ext.planning.loss_model import inputs_and_gradients
from amber_ext.progress import progress_bar


def quantization_losses(
    model: torch.nn.Module,
    sites: Sequence[LinearSite],
    batches: Iterable[torch.Tensor],
    config: OutstandingSparseConfig,
    *,
    progress: bool = False,
) -> dict[str, float]:
    """Site's name to the predicted rise of the negative log-likelihood when it alone is W8A8, nats per token.

    Args:
        model: a transformers causal LM, dense or sparsified; it runs dense and is not changed.
        sites: projections that are ``nn.Linear``.
        batches: token ids ``[B, T]`` int64. Memory: every site's input and output gradient of one batch, and its weight in
            8 bits.
        config: direction, alpha and dtype; nothing is pruned.

    Raises:
        ValueError, TypeError: no batches, or not such; NaN or Inf in weights, activations or predictions.
    """
    batches = list_batches(batches)
    modules = {site.name: model.get_submodule(site.module_name) for site in sites}
    calibration = None
    if config.direction != "none":
        calibration = calibrate(model, list(sites), batches, progress=progress)
    quantized = {}
    for name, module in modules.items():
        factor = None
        if calibration is not None:
            weight_absmax = module.weight.detach().abs().amax(0).float()
            factor = smoothing_factor(
                calibration.input_absmax[name], weight_absmax, config.direction, config.alpha
            )
        quantized[name] = QuantizedLinear.from_linear(module, factor, dtype=config.dtype)
    generator = torch.Generator().manual_seed(0)
    losses = dict.fromkeys(modules, 0.0)
    for batch in progress_bar(batches, "Measuring quantisation", progress):
        inputs, gradients = inputs_and_gradients(model, modules, batch, generator)
        for name, module in modules.items():
            # In fp32: rounding an output to 16 bits is as large as the noise.
            x = inputs.pop(name).float()
            bias = None if module.bias is None else module.bias.detach().float()
            with torch.no_grad():
                change = quantized[name](x) - F.linear(x, module.weight.detach().float(), bias)
            effects = (gradients.pop(name).float() * change).sum(-1, dtype=torch.float64)
            losses[name] += 0.5 * float(effects.square().sum())
    tokens = sum(batch.numel() for batch in batches)
    return {name: loss / tokens for name, loss in losses.items()}


def left_unquantized(
    losses: Mapping[str, float], sites: Sequence[LinearSite], budget: float
) -> list[LinearSite]:
    """The sites to leave in 16 bits, most loss for each multiply-accumulate first, so that the others lose ``budget`` at most."""
    order = sorted(sites, key=lambda site: -losses[site.name] / site.macs)
    left: list[LinearSite] = []
    remaining = sum(losses[site.name] for site in sites)
    for site in order:
        if remaining <= budget:
            break
        left.append(site)
        remaining -= losses[site.name]
    return left


def plan_unquantized(
    model: torch.nn.Module,
    batches: Iterable[torch.Tensor],
    config: OutstandingSparseConfig,
    budget: float,
    *,
    progress: bool = False,
) -> OutstandingSparseConfig:
    """``config`` with the projections to leave unquantised, in addition to those that it leaves.

    Projections that vLLM keeps in one weight (q, k and v; gate and up) are not kept together.

    Args:
        model, batches: as for `quantization_losses`.
        budget: what the quantised projections may cost together, nats per token, >= 0.

    Raises:
        ValueError: a quantised model, no batches, or a budget that is not as above. TypeError: ``config`` is no
            `OutstandingSparseConfig`.
    """
    check_is_config(config, OutstandingSparseConfig)
    if not budget >= 0:
        raise ValueError(
            f"quantization_loss: {budget} is not allowed; it must be at least 0, in nats per token"
        )
    refuse_quantized(model)
    sites = [
        site
        for site in find_linears(model)
        if site.obstacle is None and not site.is_fused and site.layer is not None
        and not config.keeps_dtype(site.projection, site.layer)
    ]  # fmt: skip
    losses = quantization_losses(model, sites, batches, config, progress=progress)
    unquantized = dict(config.unquantized)
    for site in left_unquantized(losses, sites, budget):
        unquantized[site.projection] = (*unquantized.get(site.projection, ()), site.layer)
    return dataclasses.replace(config, unquantized=unquantized)
