"""`Report`: what `sparsify_` or `quantize_` made of each linear projection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch

from amber_ext.config import AmberConfig, OutstandingSparseConfig
from amber_ext.layers.sites import LinearSite, coverage, find_linears
from amber_ext.layers.weight_copies import WeightCopies


@dataclass(frozen=True)
class ReportRow:
    """What became of one linear projection.

    Attributes:
        quantized: whether it is W8A8 now.
        sparse: whether its input is pruned in prefill, and
        pattern: to what.
        smoothing: of a quantised one: ``"none"``, ``"on the fly"``, or the norm that the factor was folded into.
        reason: why it is as it is.
    """

    name: str
    projection: str
    layer: int | None
    in_features: int
    out_features: int
    macs: float
    quantized: bool
    sparse: bool
    pattern: str | None
    smoothing: str
    reason: str


def report_row(
    site: LinearSite, pattern: object | None, reason: str, *, quantized: bool = False, smoothing: str = "none"
) -> ReportRow:
    """The row of a site; ``pattern`` is None where it is not pruned."""
    return ReportRow(
        name=site.name,
        projection=site.projection,
        layer=site.layer,
        in_features=site.in_features,
        out_features=site.out_features,
        macs=site.macs,
        quantized=quantized,
        sparse=pattern is not None,
        pattern=None if pattern is None else str(pattern),
        smoothing=smoothing,
        reason=reason,
    )


@dataclass(frozen=True)
class Report:
    """What `sparsify_` or `quantize_` did.

    Attributes:
        rows: one for each linear projection.
        bytes_before, bytes_after: memory of the linear layers, fused experts left out: weights, biases, scales and
            factors, and copies of weights for windowed patterns where a sparse kernel may read them.
        warnings: of layers that pruning makes slower on their GPU.
        folded_norms: how many norms took scores (``fold_scores``); their weights and those of the layers that read them
            are then others than the original's.
    """

    config: AmberConfig
    rows: tuple[ReportRow, ...]
    bytes_before: int
    bytes_after: int
    warnings: tuple[str, ...] = ()
    folded_norms: int = 0

    @property
    def coverage(self) -> float:
        """The share of linear-layer FLOPs that run sparse in prefill, the vocabulary head left out."""
        return coverage(self.rows)

    @property
    def extra_bytes(self) -> int:
        """Memory that the linear layers take beyond what they took."""
        return self.bytes_after - self.bytes_before

    @property
    def scores(self) -> str:
        """The score, and the projections that have another: ``"robust_norm (q_proj: magnitude)"``."""
        others = ", ".join(f"{name}: {score}" for name, score in self.config.projection_scores.items())
        return f"{self.config.score} ({others})" if others else self.config.score

    @property
    def bytes_saved(self) -> int:
        """Memory that the linear layers no longer take."""
        return self.bytes_before - self.bytes_after

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types."""
        return {
            "config": self.config.to_dict(),
            "coverage": self.coverage,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "extra_bytes": self.extra_bytes,
            "warnings": list(self.warnings),
            "folded_norms": self.folded_norms,
            "rows": [asdict(row) for row in self.rows],
        }

    def __str__(self) -> str:
        sparse = [row for row in self.rows if row.sparse]
        patterns = ", ".join(dict.fromkeys(row.pattern for row in sparse)) or str(self.config.pattern)
        if isinstance(self.config, OutstandingSparseConfig):
            quantized = sum(row.quantized for row in self.rows)
            smoothing = self.config.direction
            if smoothing != "none":
                smoothing += f" α = {self.config.alpha:g}"
            title = (
                f"{quantized} of {len(self.rows)} linear projections in {self.config.dtype} (smoothing: {smoothing}), "
                f"{len(sparse)} of them pruned to {patterns} in prefill"
            )
            memory = f"{self.bytes_before:,} bytes became {self.bytes_after:,}"
        else:
            title = (
                f"{len(sparse)} of {len(self.rows)} linear projections pruned to {patterns} ({self.scores})"
            )
            memory = f"{self.extra_bytes:,} extra bytes"
            if self.folded_norms:
                memory += f"; scores folded into {self.folded_norms} norms"
        lines = [f"{title}; coverage {self.coverage:.1%} of linear FLOPs; {memory}"]
        groups: dict[tuple[str, bool, str], int] = {}
        for row in self.rows:
            key = (row.projection, row.sparse, row.reason)
            groups[key] = groups.get(key, 0) + 1
        for (projection, is_sparse, reason), count in groups.items():
            lines.append(f"  {projection:12} {count:4} {'sparse' if is_sparse else 'dense':6} {reason}")
        return "\n".join([*lines, *(f"  warning: {warning}" for warning in self.warnings)])


# Tokens of the prefill that warnings are about.
TOKENS = 8192


def warnings_of(layers: Mapping[str, torch.nn.Module]) -> tuple[str, ...]:
    """A line for each kind of pruned layer that is slower than it was, as measured or predicted for its GPU."""
    found: dict[str, int] = {}
    for name, layer in layers.items():
        if not isinstance(layer, WeightCopies) or layer.weight.device.type != "cuda":
            continue
        try:
            decision = layer.expected(TOKENS)
        except (RuntimeError, ValueError):
            continue  # an explicit backend that cannot run: the call says so
        if decision.speedup is None or decision.speedup >= 1:
            continue
        projection = name.rpartition(".")[2]
        line = f"{projection} pruned to {layer.pattern} is slower than dense: {decision.reason}"
        found[line] = found.get(line, 0) + 1
    return tuple(f"{line} ({count} layers)" for line, count in found.items())


def layer_bytes(module: torch.nn.Module) -> int:
    """Memory of one layer: its parameters and buffers, and the copies of its weight."""
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    copies = module.copies_bytes if isinstance(module, WeightCopies) else 0
    return copies + sum(tensor.nbytes for tensor in tensors)


def linears_bytes(model: torch.nn.Module) -> int:
    """`layer_bytes` of all linear layers as they are now, fused experts left out."""
    sites = [site for site in find_linears(model) if not site.is_fused]
    return sum(layer_bytes(model.get_submodule(site.module_name)) for site in sites)
