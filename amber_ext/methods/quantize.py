"""`quantize_`: W8A8 with N:M pruned activations (Outstanding-sparse), in place, all or nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from amber_ext.config import EVERY_LAYER, OutstandingSparseConfig, check_is_config
from amber_ext.layers.fused.fuse import fuse_blocks
from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.layers.replace import dense_version, discard, replace_modules
from amber_ext.layers.sites import LinearSite, decide, find_linears
from amber_ext.methods.calibration import Calibration, calibrate
from amber_ext.methods.direct_reads import mark_quantized, refuse_direct_reads
from amber_ext.methods.norm_folding import fold_into_norm, readers_of_norm
from amber_ext.methods.report import Report, ReportRow, layer_bytes, report_row, warnings_of
from amber_ext.methods.sparsify import check_config, refuse_quantized, remember_config
from amber_ext.ops.pattern import UNPRUNED
from amber_ext.ops.quantization import smoothing_factor
from amber_ext.phase import install_phase_hooks


def quantize_(
    model: torch.nn.Module,
    config: OutstandingSparseConfig,
    batches: Iterable[torch.Tensor] | None = None,
    *,
    progress: bool = False,
) -> Report:
    """Quantises a model's linear layers to W8A8 and prunes those that ``config`` names, in place.

    Smoothing factors are folded into the norm before a layer where that is exact (`readers_of_norm`,
    every reader quantised), else applied on the fly. Until it succeeds, the model is as it was and both
    the old and the new weights are in memory; it cannot be undone.

    Args:
        model: dense or sparsified; a sparsified one is taken as dense.
        batches: token ids ``[B, T]`` int64 to calibrate with, a few hundred to a few thousand tokens;
            any iterable. Not needed when ``config.direction`` is ``"none"``.
        progress: show a progress bar over the batches.

    Returns:
        the `Report`.

    Raises:
        ValueError: a configuration that does not fit the model, a model that is quantised already or whose code
            reads the weight of a linear layer past it, no batches, activations or weights with NaN or Inf.
        TypeError: config is no `OutstandingSparseConfig`.
    """
    refuse_quantized(model)
    check_is_config(config, OutstandingSparseConfig)
    sites = find_linears(model)
    check_config(sites, config)
    _check_unquantized(sites, config)
    wanted = [s for s in sites if not s.is_fused and not _keeps_dtype(s, config)]
    refuse_direct_reads(model, [s for s in wanted if s.obstacle is None or s.is_read])
    chosen = [s for s in wanted if s.obstacle is None]

    folds = _Folds({}, {})
    calibration = None
    if config.direction != "none":
        if batches is None:
            raise ValueError(f"batches: None is not allowed; direction {config.direction!r} needs token ids")
        calibration = calibrate(model, chosen, batches, progress=progress)
        folds = _fold(model, calibration, config)

    rows, replacements = [], {}
    bytes_before = bytes_after = 0
    try:
        for site in sites:
            dense = dense_version(model.get_submodule(site.module_name))
            row, new = _replacement(dense, site, site in chosen, config, calibration, folds)
            rows.append(row)
            replacements[site.module_name] = new
            if not site.is_fused:
                bytes_before += layer_bytes(dense)
                bytes_after += layer_bytes(new)
        install_phase_hooks(model, config.cached_prompts)
    except BaseException:
        discard(replacements.values())
        raise

    with torch.no_grad():
        for name, weight in folds.norm_weights.items():
            model.get_submodule(name).weight.copy_(weight)
    replace_modules(model, replacements)
    fuse_blocks(model, config.fuse)
    mark_quantized(model, True)
    remember_config(model, config)
    return Report(config, tuple(rows), bytes_before, bytes_after, warnings_of(replacements))


@dataclass(frozen=True)
class _Folds:
    norm_weights: dict[str, torch.Tensor]
    # Linear's name to the norm, and to the factor that the norm's new weight applies.
    factors: dict[str, tuple[str, torch.Tensor]]


def _fold(model: torch.nn.Module, calibration: Calibration, config: OutstandingSparseConfig) -> _Folds:
    folds = _Folds({}, {})
    for norm in dict.fromkeys(calibration.norm_of.values()):
        readers = readers_of_norm(model, norm)
        # Only layers that will be quantised were calibrated: a reader that is not keeps the norm as it is.
        if readers is None or any(calibration.norm_of.get(reader) != norm for reader in readers):
            continue
        weight_absmax = torch.stack([_column_absmax(model.get_submodule(r)) for r in readers]).amax(0)
        factor = smoothing_factor(
            calibration.input_absmax[readers[0]], weight_absmax, config.direction, config.alpha
        )
        folded = fold_into_norm(model.get_submodule(norm).weight, factor)
        if folded is not None:
            folds.norm_weights[norm], applied = folded
            folds.factors.update({reader: (norm, applied) for reader in readers})
    return folds


def _column_absmax(linear: torch.nn.Linear) -> torch.Tensor:
    return linear.weight.detach().abs().amax(0).float()


def _replacement(
    dense: torch.nn.Module,
    site: LinearSite,
    quantized: bool,
    config: OutstandingSparseConfig,
    calibration: Calibration | None,
    folds: _Folds,
) -> tuple[ReportRow, torch.nn.Module]:
    decision = decide(site, config)
    sparse = decision.sparse and not site.is_fused
    new, smoothing = dense, "none"
    try:
        if quantized:
            folded = site.name in folds.factors
            factor = None
            if folded:
                smoothing, factor = folds.factors[site.name]
            elif calibration is not None:
                smoothing = "on the fly"
                factor = smoothing_factor(
                    calibration.input_absmax[site.name], _column_absmax(dense), config.direction, config.alpha
                )
            new = QuantizedLinear.from_linear(
                dense,
                factor,
                folded=folded,
                score=decision.score,
                dtype=config.dtype,
                pattern=decision.pattern if sparse else UNPRUNED,
                rescale=config.rescale if sparse else "none",
                backend=config.backend,
                allow_unpruned=config.allow_unpruned,
            )
        elif sparse:
            new = AmberLinear.from_linear(
                dense,
                decision.pattern,
                decision.score,
                config.rescale,
                config.backend,
                config.allow_unpruned,
            )
    except ValueError as error:
        raise ValueError(f"layer '{site.name}': {error}") from None
    if site.is_fused:
        reason = "fused experts are neither quantised nor pruned"
    else:
        kept = site.obstacle or ("left unquantised" if not quantized else config.dtype)
        reason = f"{kept}; " + (
            f"pruned to {decision.reason}" if sparse else f"not pruned: {decision.reason}"
        )
    pattern = decision.pattern if sparse else None
    return report_row(site, pattern, reason, quantized=quantized, smoothing=smoothing), new


def _keeps_dtype(site: LinearSite, config: OutstandingSparseConfig) -> bool:
    return config.keeps_dtype(site.projection, site.layer)


def _check_unquantized(sites: list[LinearSite], config: OutstandingSparseConfig) -> None:
    projections = sorted({site.projection for site in sites})
    layers = {site.layer for site in sites if site.layer is not None}
    for projection, ids in config.unquantized.items():
        if projection not in projections:
            raise ValueError(
                f"unquantized: {projection!r} is not in this model; it has: {', '.join(projections)}"
            )
        unknown = [layer for layer in ids if layer not in layers] if ids != EVERY_LAYER else []
        if unknown:
            raise ValueError(
                f"unquantized: {projection} layer {unknown[0]} is not in this model; it has 0 to {max(layers)}"
            )
