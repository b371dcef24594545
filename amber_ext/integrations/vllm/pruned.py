"""Linear layers with weights of 16 or 32 bits, pruned in prefill."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from vllm.config import VllmConfig
from vllm.model_executor.layers.linear import (
    UnquantizedLinearMethod,
    register_weight_loader_v2_supported_method,
)

from amber_ext.integrations.vllm import op
from amber_ext.integrations.vllm.parts import (
    Part,
    Projection,
    check_shards,
    part_scale,
    parts_of,
)
from amber_ext.integrations.vllm.products import products
from amber_ext.ops.choice.products import plan_key, wants_copies
from amber_ext.ops.pattern import widen_weight


@register_weight_loader_v2_supported_method
class PrunedLinearMethod(op.ByPhase, UnquantizedLinearMethod):
    """Runs one, possibly merged, linear layer: vLLM's own in decode, part by part in prefill.

    On a CPU vLLM packs a layer's weight for its products; prefill keeps it unpacked beside that.

    Args:
        projections: of the layer, in the order of its rows.
        name: of the layer.
        config: of the engine.
    """

    supports_pre_processed_weights = False  # scores come from the weight as it is loaded

    def __init__(self, projections: Sequence[Projection], name: str, config: VllmConfig) -> None:
        super().__init__()
        self.projections, self.name, self.config = tuple(projections), name, config
        self.parts: list[Part] = []

    def create_weights(
        self,
        layer: torch.nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        *sizes: object,
        **attributes: object,
    ) -> None:
        """vLLM's own weight."""
        check_shards(layer, self.projections)
        super().create_weights(layer, input_size_per_partition, output_partition_sizes, *sizes, **attributes)
        self.parts = parts_of(self.projections, output_partition_sizes)
        op.add_layer(self.config, self.name, layer)

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Scores, and copies of columns where a sparse GEMM reads them; anew when vLLM loads weights again."""
        weight = layer.weight.data
        rows = [weight[part.begin : part.end] for part in self.parts]
        self.scales = [
            None if part.projection.pattern is None else part_scale(layer, part, own)
            for part, own in zip(self.parts, rows, strict=True)
        ]
        self.kept = [_kept(own, part.projection) for part, own in zip(self.parts, rows, strict=True)]
        super().process_weights_after_loading(layer)

    def decode(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """vLLM's own."""
        return UnquantizedLinearMethod.apply(self, layer, x, bias)

    def prefill(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Part by part."""
        weights = [
            layer.weight[part.begin : part.end] if kept is None else kept
            for part, kept in zip(self.parts, self.kept, strict=True)
        ]
        return products(x, weights, bias, self.parts, self.scales)


def _kept(rows: torch.Tensor, wanted: Projection) -> torch.Tensor | None:
    """What prefill reads in the place of the layer's own weight: copies of columns with it, or, on a CPU, it unpacked."""
    if wanted.pattern is not None:
        how = (wanted.pattern, wanted.rescale, wanted.backend, wanted.allow_unpruned)
        if wants_copies(*plan_key(rows.dtype, rows.shape[1], rows, True, *how)):
            return widen_weight(rows, wanted.pattern)
    return rows if rows.device.type == "cpu" else None
