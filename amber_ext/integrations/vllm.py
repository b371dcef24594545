"""vLLM: serves a model folder that `AmberQuantConfig` saved (pruning, not 8 bits).

vLLM loads this through the entry point ``vllm.general_plugins``. It packs prefills and decodes into one batch of rows;
a row is pruned when its request processes its prompt, as `amber_ext.phase` decides: when nothing was in the cache
before this step, or several tokens come now. With speculative decoding those may be drafts, and run dense. vLLM merges q, k, v and gate, up into one weight; each part keeps its own
pattern and scores.

Refused: CUDA graphs and vLLM's compilation (a graph would freeze the phases of its first batch), tensor parallelism, and
8-bit models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from vllm.config import get_current_vllm_config
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.forward_context import get_forward_context, is_forward_context_available
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization import register_quantization_config
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig

from amber_ext.config import AmberConfig
from amber_ext.layers.sites import decide_projection, layer_number
from amber_ext.methods.checkpoint import QUANT_METHOD
from amber_ext.ops.functional import linear, nm_prune
from amber_ext.ops.pattern import Pattern
from amber_ext.ops.scores import selection_scale
from amber_ext.phase import prompt_requests


class AmberVllmConfig(QuantizationConfig):
    """The ``quantization_config`` of a model folder, as vLLM reads it."""

    def __init__(self, config: AmberConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def get_name(cls) -> str:
        """What ``config.json`` calls it."""
        return QUANT_METHOD

    @classmethod
    def get_supported_act_dtypes(cls) -> list[torch.dtype]:
        """The dtypes of `linear`."""
        return [torch.bfloat16, torch.float16, torch.float32]

    @classmethod
    def get_min_capability(cls) -> int:
        """Of the CUDA kernels."""
        return 80

    @staticmethod
    def get_config_filenames() -> list[str]:
        """Nothing beside ``config.json``."""
        return []

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> AmberVllmConfig:
        """Raises ValueError for what the plugin does not serve."""
        if config.get("kind") != "pruned":
            raise ValueError(
                f"quantization_config: kind {config.get('kind')!r} cannot be served by vLLM; allowed: 'pruned'"
            )
        return cls(AmberConfig.from_dict(config["config"]))

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> UnquantizedLinearMethod | None:
        """A pruning method for linear layers with a pruned part, vLLM's own for the others.

        Raises:
            ValueError: vLLM runs with CUDA graphs, compilation or tensor parallelism.
        """
        if not isinstance(layer, LinearBase):
            return None
        merged = prefix.rpartition(".")[2]
        parts = self.packed_modules_mapping.get(merged, [merged])
        layer_id = layer_number(prefix)
        patterns = [decide_projection(self.config, part, layer_id, layer.input_size)[0] for part in parts]
        if all(pattern is None for pattern in patterns):
            return UnquantizedLinearMethod()
        if not get_current_vllm_config().model_config.enforce_eager:
            raise ValueError(
                "enforce_eager: False is not allowed with amber_ext; CUDA graphs would freeze the phases"
            )
        processes = get_tensor_model_parallel_world_size()
        if processes > 1:
            raise ValueError(f"tensor_parallel_size: {processes} is not allowed with amber_ext; it must be 1")
        drafts = get_current_vllm_config().speculative_config is not None
        return AmberVllmMethod(patterns, self.config, "dense" if drafts else "sparse")


@dataclass
class _Part:
    """The rows of a merged weight that are one projection."""

    begin: int
    end: int
    pattern: Pattern | None
    scale: torch.Tensor | None


class AmberVllmMethod(UnquantizedLinearMethod):
    """Runs one, possibly merged, linear layer: some parts on pruned rows, the others dense.

    Args:
        patterns: of the layer's parts; None is dense.
        cached_prompts: of `prompt_requests`.
    """

    def __init__(
        self, patterns: list[Pattern | None], config: AmberConfig, cached_prompts: str = "sparse"
    ) -> None:
        super().__init__()
        self.patterns, self.config, self.cached_prompts = patterns, config, cached_prompts

    def create_weights(
        self,
        layer: torch.nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        *sizes: object,
        **attributes: object,
    ) -> None:
        """vLLM's own weight; the parts' widths are kept."""
        super().create_weights(layer, input_size_per_partition, output_partition_sizes, *sizes, **attributes)
        layer.amber_widths = list(output_partition_sizes)

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Scores of each pruned part, from its rows of the weight."""
        parts, begin = [], 0
        for width, pattern in zip(layer.amber_widths, self.patterns, strict=True):
            scale = None
            if pattern is not None:
                scale = selection_scale(layer.weight[begin : begin + width], self.config.score)
            parts.append(_Part(begin, begin + width, pattern, scale))
            begin += width
        layer.amber_parts = parts

    def apply(
        self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x ``[rows, K]`` to ``[rows, N]``."""
        prefill = prefill_rows(len(x), x.device, self.cached_prompts)
        outputs = []
        for part in layer.amber_parts:
            weight = layer.weight[part.begin : part.end]
            part_bias = None if bias is None else bias[part.begin : part.end]
            if part.pattern is None:
                outputs.append(F.linear(x, weight, part_bias))
            elif prefill is None:
                options = {"rescale": self.config.rescale, "backend": self.config.backend}
                outputs.append(
                    linear(x, weight, part_bias, pattern=part.pattern, scale=part.scale, **options)
                )
            else:
                pruned = nm_prune(x, part.pattern, part.scale, self.config.rescale)
                outputs.append(F.linear(torch.where(prefill[:, None], pruned, x), weight, part_bias))
        return torch.cat(outputs, -1)


def prefill_rows(rows: int, device: torch.device, cached_prompts: str = "sparse") -> torch.Tensor | None:
    """Which rows of this step's batch are prefill, bool ``[rows]``; None where there is no batch (all are).

    Rows behind the last request's are padding, and count as decode. Nothing is synchronised.

    Raises:
        RuntimeError: the attention backend does not say which rows belong to which request.
    """
    metadata = get_forward_context().attn_metadata if is_forward_context_available() else None
    if not metadata:
        return None  # vLLM measures memory with a batch of no requests
    first = next(iter(metadata.values())) if isinstance(metadata, dict) else metadata
    starts, lengths = getattr(first, "query_start_loc", None), getattr(first, "seq_lens", None)
    if starts is None or lengths is None:
        raise RuntimeError(
            f"attention backend: {type(first).__name__} has no query_start_loc and seq_lens; amber_ext cannot tell "
            "prefill from decode there; use another attention backend"
        )
    count = len(starts) - 1
    is_prefill = prompt_requests(starts[1:] - starts[:-1], lengths[:count], cached_prompts)
    request = torch.searchsorted(starts[1:].contiguous(), torch.arange(rows, device=device), right=True)
    return (request < count) & is_prefill[request.clamp_max(count - 1)]


def register() -> None:
    """The entry point: tells vLLM; again changes nothing."""
    register_quantization_config(QUANT_METHOD)(AmberVllmConfig)
