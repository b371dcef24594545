"""The projections of which vLLM's merged linear layers consist, and the scores of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from vllm.distributed import tensor_model_parallel_all_gather
from vllm.model_executor.layers.linear import ColumnParallelLinear, QKVParallelLinear, RowParallelLinear

from amber_ext.ops.pattern import Pattern
from amber_ext.ops.scores import MAGNITUDE, selection_scale


@dataclass(frozen=True)
class Projection:
    """One projection of a layer, as the configuration wants it.

    Attributes:
        name: its own, as transformers calls it, for example ``"q_proj"``.
        pattern: None where it stays dense.
        score, rescale, backend, allow_unpruned: as in an `AmberConfig`.
    """

    name: str
    pattern: Pattern | None
    score: str = MAGNITUDE
    rescale: str = "none"
    backend: str = "auto"
    allow_unpruned: bool = False

    @classmethod
    def of(cls, fields: Mapping[str, object]) -> Projection:
        """From what a layer of a saved model is (`methods.checkpoint.describe_layers`), and its name."""
        if fields["kind"] == "dense":
            return cls(fields["name"], None)
        return cls(
            fields["name"],
            Pattern(fields["pattern"]),
            fields.get("score", MAGNITUDE),  # 8-bit layers have their scales stored
            fields["rescale"],
            fields["backend"],
            fields.get("allow_unpruned", False),
        )


@dataclass(frozen=True)
class Part:
    """The rows ``begin`` to ``end`` of this process' weight: one projection, or several that are dense.

    Attributes:
        index: of the projection in its layer; of the first where there are several.
    """

    begin: int
    end: int
    projection: Projection
    index: int


def parts_of(projections: Sequence[Projection], widths: Sequence[int]) -> list[Part]:
    """Neighbours that are dense become one part.

    Args:
        widths: the rows of each projection in this process; several for one projection that is saved merged (Phi-3).
    """
    if len(projections) == 1:
        widths = [sum(widths)]
    parts: list[Part] = []
    begin = 0
    for index, (projection, width) in enumerate(zip(projections, widths, strict=True)):
        end = begin + width
        if parts and parts[-1].projection.pattern is None and projection.pattern is None:
            parts[-1] = replace(parts[-1], end=end)
        else:
            parts.append(Part(begin, end, projection, index))
        begin = end
    return parts


def check_shards(layer: torch.nn.Module, projections: Sequence[Projection]) -> None:
    """Raises ValueError when a split layer cannot be pruned as the whole one would be."""
    repeats = isinstance(layer, QKVParallelLinear) and layer.num_kv_head_replicas > 1
    if repeats and len(projections) == 1 and projections[0].pattern is not None:
        raise ValueError(
            f"tensor_parallel_size: {layer.tp_size} is not allowed with pruned {projections[0].name}: several processes have "
            "the same key and value heads, whose rows would count more than once in its scores"
        )
    if not is_split_by_columns(layer):
        return
    width = layer.input_size_per_partition
    for projection in projections:
        if projection.pattern is None:
            continue
        if width % projection.pattern.m != 0:
            raise ValueError(
                f"tensor_parallel_size: {layer.tp_size} gives {projection.name} K = {width} channels a process, which is "
                f"not a multiple of M = {projection.pattern.m}; use another pattern or size"
            )
        if projection.rescale != "none":
            raise ValueError(
                f"rescale: {projection.rescale!r} is not allowed for {projection.name} with tensor_parallel_size "
                f"{layer.tp_size}: each process sees a slice of the token; it must be 'none'"
            )


def is_split_by_columns(layer: torch.nn.Module) -> bool:
    """Whether each process has some channels of every token."""
    return isinstance(layer, RowParallelLinear) and layer.tp_size > 1


def part_scale(layer: torch.nn.Module, part: Part, rows: torch.Tensor) -> torch.Tensor | None:
    """The channel scale of a part, fp32 ``[K of this process]``: from the whole weight, also where it is split.

    Args:
        rows: this process' weight of the part, in its own dtype or dequantised.
    """
    scale = selection_scale(_whole(layer, part, rows), part.projection.score)
    if scale is not None and is_split_by_columns(layer):
        width = layer.input_size_per_partition
        scale = scale[layer.tp_rank * width : (layer.tp_rank + 1) * width].contiguous()
    return scale


def _whole(layer: torch.nn.Module, part: Part, rows: torch.Tensor) -> torch.Tensor:
    if layer.tp_size == 1 or not isinstance(layer, ColumnParallelLinear | RowParallelLinear):
        return rows
    if isinstance(layer, RowParallelLinear):
        return tensor_model_parallel_all_gather(rows.contiguous(), dim=1)
    whole = tensor_model_parallel_all_gather(rows.contiguous(), dim=0)
    if isinstance(layer, QKVParallelLinear) and part.index > 0 and layer.num_kv_head_replicas > 1:
        # Several processes have the same key and value heads. (`check_shards` refuses that where q is in one with them.)
        whole = torch.cat(whole.split(len(rows))[:: layer.num_kv_head_replicas])
    return whole
