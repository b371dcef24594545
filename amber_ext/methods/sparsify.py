"""`sparsify_`: prunes the inputs of a model's linear layers, in place, all or nothing."""

from __future__ import annotations

import torch

from amber_ext.config import AmberConfig, check_is_config
from amber_ext.layers.fused.fuse import fuse_blocks, separate_blocks
from amber_ext.layers.pruned_experts import is_fused_experts, prune_experts
from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.replace import dense_version, discard, replace_modules
from amber_ext.layers.sites import LinearSite, SiteDecision, decide, find_linears, quantized_layer
from amber_ext.methods import score_folding
from amber_ext.methods.report import Report, layer_bytes, report_row, warnings_of
from amber_ext.phase import install_phase_hooks, remove_phase_hooks


def sparsify_(model: torch.nn.Module, config: AmberConfig, *, fold_scores: bool = False) -> Report:
    """Prunes the inputs of the layers that ``config`` names, in place.

    Weights are shared, not copied (but for windowed patterns on a GPU, `WeightCopies`): peak extra memory is
    the channel scales and one layer's working set. A model that was sparsified before is first taken back to dense.
    On an error the model is as it was.

    Args:
        model: any module with ``nn.Linear`` layers; transformers models also get hooks that tell
            prefill from decode (`amber_ext.phase`).
        fold_scores: multiplies the channel scales of layers that read a norm's output (q and gate in models like Llama)
            into that norm, and divides the weights that read it by them, so that these layers prune by plain magnitude
            and choose as their score does (`amber_ext.methods.score_folding`). It changes weights for good: the model
            computes the same up to rounding, and `densify_` leaves them so. The report's configuration says
            ``projection_scores``, with which the changed model is saved, loaded and served.

    Returns:
        the `Report`: what is sparse, what stayed dense and why.

    Raises:
        ValueError: unknown targets or layers, no linear layers, a quantised model, unsupported fused experts, a
            weight with NaN or Inf, a model whose phases cannot be told (`install_phase_hooks`), or scores that cannot
            be folded.
        TypeError: config is no `AmberConfig`.
    """
    refuse_quantized(model)
    sites = find_linears(model)
    check_config(sites, config)
    decisions = {site: decide(site, config) for site in sites}
    folded = None
    if fold_scores:
        folded = score_folding.fold_scores(model, decisions, config)
        config = folded.config
        decisions = {site: decide(site, config) for site in sites}

    replacements: dict[str, torch.nn.Module] = {}
    made: dict[tuple[object, ...], torch.nn.Module] = {}
    bytes_before = bytes_after = 0
    try:
        for module_name in dict.fromkeys(site.module_name for site in sites):
            pruned = {s: d for s, d in decisions.items() if s.module_name == module_name and d.sparse}
            module = model.get_submodule(module_name)
            # A module that stands in the model twice stays one where it is treated alike.
            key = (
                id(module),
                *((s.is_fused and s.projection, d.pattern, d.score) for s, d in pruned.items()),
            )
            if key in made:
                replacements[module_name] = made[key]
                continue
            dense = dense_version(module)
            new = made[key] = replacements[module_name] = _replacement(dense, pruned, config)
            if not is_fused_experts(dense):
                bytes_before += layer_bytes(dense)
                bytes_after += layer_bytes(new)
        install_phase_hooks(model, config.cached_prompts)
    except BaseException:
        discard(replacements.values())
        raise

    if folded is not None:
        folded.apply(model)
    replace_modules(model, replacements)
    fuse_blocks(model, config.fuse)
    remember_config(model, config)
    rows = tuple(report_row(site, decision.pattern, decision.reason) for site, decision in decisions.items())
    norms = 0 if folded is None else folded.norms
    return Report(config, rows, bytes_before, bytes_after, warnings_of(replacements), norms)


def densify_(model: torch.nn.Module) -> None:
    """Undoes `sparsify_`, in place. A dense model stays as it is.

    Raises:
        ValueError: the model is quantised, which cannot be undone.
    """
    refuse_quantized(model)
    separate_blocks(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    replace_modules(model, {name: dense_version(module) for name, module in modules.items() if name})
    remove_phase_hooks(model)
    model.__dict__.pop(_CONFIG, None)


def refuse_quantized(model: torch.nn.Module) -> None:
    """Raises ValueError when a layer is quantised: that cannot be undone, and the dense weights are needed."""
    if (layer := quantized_layer(model)) is not None:
        raise ValueError(
            f"model: {type(model).__name__} is quantised ({layer}), which cannot be undone; a model that is not is "
            "needed, load the original"
        )


# On the model, so that saving knows it: what it was pruned or quantised with.
_CONFIG = "_amber_config"


def remember_config(model: torch.nn.Module, config: AmberConfig) -> None:
    """Keeps with the model what it was pruned or quantised with, for `remembered_config`."""
    model.__dict__[_CONFIG] = config


def remembered_config(model: torch.nn.Module) -> AmberConfig | None:
    """What `sparsify_` or `quantize_` did to this very model, or None."""
    return model.__dict__.get(_CONFIG)


def check_config(sites: list[LinearSite], config: AmberConfig) -> None:
    """Raises TypeError when ``config`` is none, ValueError when it names projections, layers or experts that it cannot prune."""
    check_is_config(config)
    projections = sorted({site.projection for site in sites})
    for target in config.targets:
        if target not in projections:
            raise ValueError(f"targets: {target!r} is not in this model; it has: {', '.join(projections)}")
    layers = {site.layer for site in sites if site.layer is not None}
    named = [("skip_layers", projection, ids) for projection, ids in config.skip_layers.items()]
    for projection, patterns in config.layer_patterns.items():
        named += [("layer_patterns", projection, ids) for ids in patterns.values()]
    for field, projection, ids in named:
        unknown = [layer for layer in ids if layer not in layers]
        if unknown:
            allowed = f"0 to {max(layers)}" if layers else "none (its layers have no numbers)"
            raise ValueError(
                f"{field}: {projection} layer {unknown[0]} is not in this model; it has {allowed}"
            )
    for site in sites:
        if site.is_expert and site.obstacle is not None and site.projection in config.targets:
            raise ValueError(
                f"targets: {site.projection!r} names '{site.name}', but {site.obstacle}; "
                "leave it out of the targets"
            )


def _replacement(
    dense: torch.nn.Module, pruned: dict[LinearSite, SiteDecision], config: AmberConfig
) -> torch.nn.Module:
    if not pruned:
        return dense
    if is_fused_experts(dense):
        pattern_of = {site.projection: decision.pattern for site, decision in pruned.items()}
        return prune_experts(dense, pattern_of, config.rescale, config.backend, config.allow_unpruned)
    ((site, decision),) = pruned.items()
    try:
        return AmberLinear.from_linear(
            dense, decision.pattern, decision.score, config.rescale, config.backend, config.allow_unpruned
        )
    except ValueError as error:
        raise ValueError(f"layer '{site.name}': {error}") from None
