"""`sparsify_`: prunes the inputs of a model's linear layers, in place, all or nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from amber_ext.amber_linear import AmberLinear
from amber_ext.config import AmberConfig
from amber_ext.experts import is_fused_experts, prune_experts
from amber_ext.layers import LinearSite, dense_version, discard, find_linears, replace_modules
from amber_ext.phase import install_phase_hooks, remove_phase_hooks
from amber_ext.quantized_linear import QuantizedLinear


@dataclass(frozen=True)
class ReportRow:
    """What became of one linear projection."""

    name: str
    projection: str
    layer: int | None
    in_features: int
    out_features: int
    macs: float
    sparse: bool
    pattern: str | None
    reason: str


@dataclass(frozen=True)
class Report:
    """What `sparsify_` did.

    Attributes:
        rows: one for each linear projection.
        extra_bytes: memory that the channel scales take, and the weights' copies for windowed patterns where a
            sparse kernel may read them.
    """

    config: AmberConfig
    rows: tuple[ReportRow, ...]
    extra_bytes: int

    @property
    def coverage(self) -> float:
        """The share of linear-layer FLOPs that run sparse in prefill, the vocabulary head left out."""
        return sum(row.macs for row in self.rows if row.sparse) / sum(row.macs for row in self.rows)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types."""
        return {
            "config": self.config.to_dict(),
            "coverage": self.coverage,
            "extra_bytes": self.extra_bytes,
            "rows": [asdict(row) for row in self.rows],
        }

    def __str__(self) -> str:
        sparse = [row for row in self.rows if row.sparse]
        lines = [
            f"{len(sparse)} of {len(self.rows)} linear projections pruned to "
            f"{', '.join(dict.fromkeys(row.pattern for row in sparse)) or self.config.pattern} "
            f"({self.config.score}); coverage {self.coverage:.1%} of linear FLOPs; "
            f"{self.extra_bytes:,} extra bytes"
        ]
        groups: dict[tuple[str, bool, str], list[ReportRow]] = {}
        for row in self.rows:
            groups.setdefault((row.projection, row.sparse, row.reason), []).append(row)
        for (projection, is_sparse, reason), rows in groups.items():
            state = "sparse" if is_sparse else "dense"
            lines.append(f"  {projection:12} {len(rows):4} {state:6} {reason}")
        return "\n".join(lines)


def sparsify_(model: torch.nn.Module, config: AmberConfig) -> Report:
    """Prunes the inputs of the layers that ``config`` names, in place.

    Weights are shared, not copied (but for windowed patterns on a GPU, `WindowCopies`): peak extra memory is
    the channel scales and one layer's working set. A model that was sparsified before is first taken back to dense. On an error the model is as
    it was.

    Args:
        model: any module with ``nn.Linear`` layers; transformers models also get hooks that tell
            prefill from decode (`amber_ext.phase`).

    Returns:
        the `Report`: what is sparse, what stayed dense and why.

    Raises:
        ValueError: unknown targets or layers, no linear layers, unsupported fused experts, a
            weight with NaN or Inf, or a model whose phases cannot be told (`install_phase_hooks`).
    """
    sites = find_linears(model)
    check_config(sites, config)
    rows = tuple(decide(site, config) for site in sites)

    replacements: dict[str, torch.nn.Module] = {}
    try:
        for module_name in dict.fromkeys(site.module_name for site in sites):
            pruned = [
                site
                for site, row in zip(sites, rows, strict=True)
                if site.module_name == module_name and row.sparse
            ]
            replacements[module_name] = _replacement(model.get_submodule(module_name), pruned, config)
        install_phase_hooks(model)
    except BaseException:
        discard(replacements.values())
        raise

    replace_modules(model, replacements)
    pruned_layers = [module for module in replacements.values() if isinstance(module, AmberLinear)]
    return Report(config, rows, sum(layer.extra_bytes for layer in pruned_layers))


def densify_(model: torch.nn.Module) -> None:
    """Undoes `sparsify_`, in place. A dense model stays as it is.

    Raises:
        ValueError: the model was quantised (`quantize_`), which cannot be undone.
    """
    if any(isinstance(module, QuantizedLinear) for module in model.modules()):
        raise ValueError("model: it was quantised, which cannot be undone; load the original")
    modules = dict(model.named_modules(remove_duplicate=False))
    replace_modules(model, {name: dense_version(module) for name, module in modules.items() if name})
    remove_phase_hooks(model)


def check_config(sites: list[LinearSite], config: AmberConfig) -> None:
    """Raises ValueError when ``config`` names projections, layers or experts that it cannot prune."""
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


def decide(site: LinearSite, config: AmberConfig) -> ReportRow:
    """Whether ``config`` prunes this site, and why or why not."""
    pattern = config.pattern_of(site.projection, site.layer)
    if site.projection not in config.targets:
        sparse, reason = False, "not a target"
    elif site.layer in config.skip_layers.get(site.projection, ()):
        sparse, reason = False, "skipped layer"
    elif site.obstacle is not None:
        sparse, reason = False, site.obstacle
    elif site.in_features % pattern.m != 0:
        sparse, reason = False, f"K = {site.in_features} is not a multiple of M = {pattern.m}"
    else:
        sparse, reason = True, f"{pattern} {score_for(site, config)}"
    return ReportRow(
        name=site.name,
        projection=site.projection,
        layer=site.layer,
        in_features=site.in_features,
        out_features=site.out_features,
        macs=site.macs,
        sparse=sparse,
        pattern=str(pattern) if sparse else None,
        reason=reason,
    )


def score_for(site: LinearSite, config: AmberConfig) -> str:
    """The score that ``config`` gives to this site."""
    # Tokens are routed to experts dynamically; the paper uses plain magnitudes there (section 4).
    return "magnitude" if site.is_expert else config.score


def _replacement(module: torch.nn.Module, pruned: list[LinearSite], config: AmberConfig) -> torch.nn.Module:
    dense = dense_version(module)
    if not pruned:
        return dense
    if is_fused_experts(dense):
        pattern_of = {site.projection: config.pattern_of(site.projection, site.layer) for site in pruned}
        return prune_experts(dense, pattern_of, config.rescale, config.backend)
    site = pruned[0]
    pattern = config.pattern_of(site.projection, site.layer)
    try:
        return AmberLinear.from_linear(
            dense, pattern, score_for(site, config), config.rescale, config.backend
        )
    except ValueError as error:
        raise ValueError(f"layer '{site.name}': {error}") from None
