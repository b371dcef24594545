"""8-bit linear layers of folders that `quantize_` made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from vllm.config import VllmConfig
from vllm.model_executor.layers.linear import LinearMethodBase, register_weight_loader_v2_supported_method
from vllm.model_executor.parameter import (
    BasevLLMParameter,
    ChannelQuantScaleParameter,
    ModelWeightParameter,
)

from amber_ext.integrations.vllm import op
from amber_ext.integrations.vllm.parts import Part, Projection, parts_of
from amber_ext.integrations.vllm.products import products_w8a8
from amber_ext.ops.functional import linear_w8a8
from amber_ext.ops.reference import QUANTIZED_DTYPES


class _FlatWeight(ModelWeightParameter):
    """An 8-bit weight, which folders store flat (`integrations.transformers`)."""

    def __init__(self, in_features: int, **kwargs: object) -> None:
        self.in_features = in_features
        super().__init__(**kwargs)

    def load_column_parallel_weight(self, loaded_weight: torch.Tensor) -> None:
        super().load_column_parallel_weight(self._matrix(loaded_weight))

    def load_row_parallel_weight(self, loaded_weight: torch.Tensor) -> None:
        super().load_row_parallel_weight(self._matrix(loaded_weight))

    def load_merged_column_weight(self, loaded_weight: torch.Tensor, **kwargs: object) -> None:
        super().load_merged_column_weight(self._matrix(loaded_weight), **kwargs)

    def load_qkv_weight(self, loaded_weight: torch.Tensor, **kwargs: object) -> None:
        super().load_qkv_weight(self._matrix(loaded_weight), **kwargs)

    def _matrix(self, loaded: torch.Tensor) -> torch.Tensor:
        return loaded.view(-1, self.in_features)


class _FactorOfPart(BasevLLMParameter):
    """``[parts, K]``: what each projection's input channels are multiplied by, loaded from ``[K]`` of each."""

    def load_merged_column_weight(self, loaded_weight: torch.Tensor, **kwargs: object) -> None:
        self.data[self._shard_id_as_int(kwargs["shard_id"])].copy_(loaded_weight)

    load_qkv_weight = load_merged_column_weight

    def load_column_parallel_weight(self, loaded_weight: torch.Tensor) -> None:
        self.data[0].copy_(loaded_weight)

    load_row_parallel_weight = load_column_parallel_weight


@register_weight_loader_v2_supported_method
class QuantizedLinearMethod(op.ByPhase, LinearMethodBase):
    """Runs a layer of a folder that `quantize_` made: what `QuantizedLinear` does, part by part.

    Args:
        fields: what each projection is (`methods.checkpoint.describe_layers`), in the order of the layer's rows.
        name: of the layer.
        config: of the engine.
    """

    def __init__(self, fields: Sequence[Mapping[str, object]], name: str, config: VllmConfig) -> None:
        self.fields, self.name, self.config = tuple(fields), name, config
        self.parts: list[Part] = []

    def create_weights(
        self,
        layer: torch.nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **attributes: object,
    ) -> None:
        """What `QuantizedLinear` has as buffers."""
        loader = attributes["weight_loader"]
        rows, parts = sum(output_partition_sizes), len(self.fields)
        dtype = QUANTIZED_DTYPES[self.fields[0]["dtype"]]
        weight = torch.empty(rows, input_size_per_partition, dtype=dtype)
        layer.weight = _FlatWeight(
            in_features=input_size, data=weight, input_dim=1, output_dim=0, weight_loader=loader
        )
        scale = torch.empty(rows, dtype=torch.float32)  # vLLM's default here is the model's
        layer.weight_scale = ChannelQuantScaleParameter(data=scale, output_dim=0, weight_loader=loader)
        for factor in ("smooth", "channel_scale"):
            if any(fields[factor] for fields in self.fields):
                data = torch.ones(parts, input_size_per_partition, dtype=torch.float32)
                setattr(layer, factor, _FactorOfPart(data=data, weight_loader=loader))
        self.parts = parts_of([Projection.of(fields) for fields in self.fields], output_partition_sizes)
        op.add_layer(self.config, self.name, layer)

    def prefill(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Part by part."""
        return self._by_part(layer, x, bias, dense=False)

    def decode(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """All parts at once, where none has factors of its own."""
        if hasattr(layer, "smooth"):
            return self._by_part(layer, x, bias, dense=True)
        return linear_w8a8(x, layer.weight.data, layer.weight_scale.data, bias)

    def _by_part(
        self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None, dense: bool
    ) -> torch.Tensor:
        def factor(name: str, part: Part) -> torch.Tensor | None:
            return getattr(layer, name).data[part.index] if self.fields[part.index][name] else None

        return products_w8a8(
            x,
            layer.weight.data,
            layer.weight_scale.data,
            bias,
            self.parts,
            scales=[None if dense else factor("channel_scale", part) for part in self.parts],
            smooth=[factor("smooth", part) for part in self.parts],
            dense=dense,
        )
