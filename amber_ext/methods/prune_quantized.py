"""`prune_quantized_`: pruned inputs for a model whose weights are 8-bit already, in place, all or nothing."""

from __future__ import annotations

import dataclasses

import torch

from amber_ext.config import AmberConfig, check_is_config
from amber_ext.layers.fused.fuse import fuse_blocks
from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.layers.replace import dense_version, discard, replace_modules
from amber_ext.layers.sites import LinearSite, SiteDecision, decide, find_linears
from amber_ext.methods.report import Report, layer_bytes, report_row, warnings_of
from amber_ext.methods.sparsify import check_config, remember_config, remembered_config
from amber_ext.ops.pattern import UNPRUNED
from amber_ext.phase import install_phase_hooks


def prune_quantized_(model: torch.nn.Module, config: AmberConfig) -> Report:
    """Prunes the inputs of a quantised model's layers as ``config`` says, in place; what was pruned before no longer is.

    8-bit weights stay bit for bit what they are. Scores are computed from them times their scales. On an error the model
    is as it was.

    Args:
        model: of `quantize_` or `load_quantized`.

    Returns:
        the `Report`.

    Raises:
        ValueError: the model has no 8-bit layers, or the configuration does not fit it.
        TypeError: config is no `AmberConfig`.
    """
    check_is_config(config)
    before = remembered_config(model)
    if before is None or not any(isinstance(module, QuantizedLinear) for module in model.modules()):
        raise ValueError(
            f"model: {type(model).__name__} has no 8-bit layers of amber_ext; sparsify_ prunes such a model"
        )
    sites = [_as_prunable(site, model) for site in find_linears(model)]
    check_config(sites, config)
    rows, replacements = [], {}
    bytes_before = bytes_after = 0
    try:
        for site in sites:
            old, decision = model.get_submodule(site.module_name), decide(site, config)
            new = replacements[site.module_name] = _pruned(old, site, decision, config)
            quantized = isinstance(new, QuantizedLinear)
            pattern = None if site.is_fused else decision.pattern
            reason = "fused experts are neither quantised nor pruned" if site.is_fused else decision.reason
            rows.append(report_row(site, pattern, reason, quantized=quantized))
            if not site.is_fused:
                bytes_before += layer_bytes(old)
                bytes_after += layer_bytes(new)
        install_phase_hooks(model, config.cached_prompts)
    except BaseException:
        discard(replacements.values())
        raise
    replace_modules(model, replacements)
    fuse_blocks(model, config.fuse)
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(AmberConfig)}
    made = dataclasses.replace(before, **fields)
    remember_config(model, made)
    return Report(made, tuple(rows), bytes_before, bytes_after, warnings_of(replacements))


def _as_prunable(site: LinearSite, model: torch.nn.Module) -> LinearSite:
    """The site without what keeps `sparsify_` from it: that it is quantised."""
    quantized = isinstance(model.get_submodule(site.module_name), QuantizedLinear)
    return dataclasses.replace(site, obstacle=None) if quantized else site


def _pruned(
    old: torch.nn.Module, site: LinearSite, decision: SiteDecision, config: AmberConfig
) -> torch.nn.Module:
    how = {"score": decision.score, "rescale": config.rescale, "backend": config.backend}
    how["allow_unpruned"] = config.allow_unpruned
    try:
        if isinstance(old, QuantizedLinear):
            pattern = decision.pattern or UNPRUNED
            if not decision.sparse:
                how["rescale"] = "none"
            return QuantizedLinear.from_values(
                old.weight, old.weight_scale, old.bias, old.smooth, pattern=pattern, **how
            )
        dense = dense_version(old)
        if site.is_fused or not decision.sparse:
            return dense
        return AmberLinear.from_linear(dense, decision.pattern, **how)
    except ValueError as error:
        raise ValueError(f"layer '{site.name}': {error}") from None
