"""vLLM's own W8A8 layers of compressed-tensors checkpoints, with pruning on top in prefill."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from vllm.config import VllmConfig
from vllm.model_executor.layers.linear import LinearMethodBase, register_weight_loader_v2_supported_method
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import (
    CompressedTensorsLinearMethod,
)
from vllm.model_executor.layers.quantization.compressed_tensors.schemes import (
    CompressedTensorsW8A8Fp8,
    CompressedTensorsW8A8Int8,
)

from amber_ext.integrations.vllm import op
from amber_ext.integrations.vllm.parts import (
    Part,
    Projection,
    check_shards,
    part_scale,
    parts_of,
)
from amber_ext.integrations.vllm.products import products_w8a8


@register_weight_loader_v2_supported_method
class PrunedCompressedMethod(op.ByPhase, LinearMethodBase):
    """Runs one layer: vLLM's own in decode, `linear_w8a8` on the same 8-bit weight, part by part, in prefill.

    Args:
        inner: vLLM's method.
        projections: of the layer, in the order of its rows.
        name: of the layer.
        config: of the engine.
    """

    def __init__(
        self,
        inner: CompressedTensorsLinearMethod,
        projections: Sequence[Projection],
        name: str,
        config: VllmConfig,
    ) -> None:
        self.inner, self.projections, self.name, self.config = inner, tuple(projections), name, config
        self.parts: list[Part] = []

    def create_weights(
        self,
        layer: torch.nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        *sizes: object,
        **attributes: object,
    ) -> None:
        """vLLM's own weights.

        Raises:
            ValueError: activations are not quantised token by token, or weights not channel by channel.
        """
        check_scheme(layer.scheme, self.name)
        check_shards(layer, self.projections)
        sizes = (input_size_per_partition, output_partition_sizes, *sizes)
        self.inner.create_weights(layer, *sizes, **attributes)
        self.parts = parts_of(self.projections, output_partition_sizes)
        op.add_layer(self.config, self.name, layer)

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Scores from the dequantised weight; then vLLM packs the weight as it likes."""
        self.weight = layer.weight.data.clone()
        self.weight_scale = layer.weight_scale.data.float().flatten().clone()
        self.scales = []
        for part in self.parts:
            rows, scale = slice(part.begin, part.end), None
            if part.projection.pattern is not None:
                dequantised = self.weight[rows].float() * self.weight_scale[rows, None]
                scale = part_scale(layer, part, dequantised)
            self.scales.append(scale)
        self.inner.process_weights_after_loading(layer)

    def decode(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """vLLM's own."""
        return self.inner.apply(layer, x, bias)

    def prefill(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Part by part."""
        nothing = [None] * len(self.parts)
        return products_w8a8(x, self.weight, self.weight_scale, bias, self.parts, self.scales, smooth=nothing)


def check_scheme(scheme: object, name: str) -> None:
    """Raises ValueError for other quantisation than `linear_w8a8`'s."""
    supported = isinstance(scheme, CompressedTensorsW8A8Int8 | CompressedTensorsW8A8Fp8)
    symmetric = getattr(scheme, "input_symmetric", True)
    if not supported or scheme.strategy != "channel" or scheme.is_static_input_scheme or not symmetric:
        raise ValueError(
            f"layer '{name}': {type(scheme).__name__} is not allowed with pruning; allowed are int8 and fp8 weights with a "
            "scale for each channel, and dynamic symmetric scales for each token"
        )
