"""Weights that tensor parallelism has split between processes (DTensor).

Column-parallel layers (q, gate: rows of W are split) see whole tokens: with the scores of the whole weight, every rank
keeps the same channels. Row-parallel layers (down: columns of W are split) see a slice of each token: groups stay whole
where the slices are multiples of M, and again the scores must be those of the whole weight.
"""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from amber_ext.ops.pattern import Pattern
from amber_ext.ops.scores import channel_scale


def is_sharded(weight: torch.Tensor) -> bool:
    """Whether this process holds a part of the weight."""
    return isinstance(weight, DTensor)


def check_sharding(weight: torch.Tensor, pattern: Pattern, rescale: str) -> None:
    """Raises ValueError when slices of a token cannot be pruned as the whole token would be."""
    if not is_sharded(weight) or Shard(1) not in weight.placements:
        return
    local = weight.to_local().shape[1]
    if local % pattern.m != 0:
        raise ValueError(
            f"weight: its shard of K = {local} channels is not a multiple of M = {pattern.m}; use another pattern or "
            "number of processes"
        )
    if rescale != "none":
        raise ValueError(
            f"rescale: {rescale!r} is not allowed where channels are split between processes; it needs whole tokens; "
            "allowed: 'none'"
        )


def sharded_channel_scale(weight: torch.Tensor, score: str) -> torch.Tensor:
    """`channel_scale` of the whole weight, for the channels that this process holds."""
    if not is_sharded(weight):
        return channel_scale(weight, score)
    scale = channel_scale(weight.detach().full_tensor(), score)
    placements = [Shard(0) if placement == Shard(1) else None for placement in weight.placements]
    for dimension, placement in enumerate(placements):
        if placement is not None:
            mesh = weight.device_mesh if weight.device_mesh.ndim == 1 else weight.device_mesh[dimension]
            scale = distribute_tensor(scale, mesh, [placement], src_data_rank=None).to_local()
    return scale
