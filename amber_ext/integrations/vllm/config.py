"""What a model folder's ``quantization_config`` makes of each linear layer, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from vllm.config import CUDAGraphMode, VllmConfig, get_current_vllm_config
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig, QuantizeMethodBase

from amber_ext.config import AmberConfig, OutstandingSparseConfig
from amber_ext.integrations.vllm.parts import Projection
from amber_ext.integrations.vllm.pruned import PrunedLinearMethod
from amber_ext.integrations.vllm.runners import follow_runner
from amber_ext.layers.sites import decide_projection, layer_number
from amber_ext.methods.checkpoint import QUANT_METHOD

# What transformers' configurations call the number of experts.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
# The projections of experts; what else they are called is not a target of any configuration that prunes them.
_EXPERT_PROJECTIONS = ("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")


class AmberVllmConfig(QuantizationConfig):
    """The ``quantization_config`` of a model folder, as vLLM reads it.

    Args:
        config: None is an `AmberConfig` with its defaults, for ``quantization="amber_ext"`` on a dense folder.
        layers: of a folder with 8-bit weights: what each layer is (`methods.checkpoint.describe_layers`).
    """

    def __init__(
        self,
        config: AmberConfig | None = None,
        layers: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.layers = config or AmberConfig(), layers

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
        kind, fields = config.get("kind", "pruned"), config.get("config", {})
        if kind == "pruned":
            return cls(AmberConfig.from_dict(fields))
        if kind == "quantized":
            return cls(OutstandingSparseConfig.from_dict(fields), config["layers"])
        raise ValueError(f"quantization_config: kind {kind!r} is not allowed; allowed: 'pruned', 'quantized'")

    def maybe_update_config(
        self, model_name: str, hf_config: object | None = None, revision: str | None = None
    ) -> None:
        """Raises ValueError for models that cannot be served as the configuration says."""
        text = getattr(hf_config, "text_config", hf_config)
        has_experts = any((getattr(text, name, None) or 0) > 1 for name in _EXPERTS)
        pruned = sorted({*_EXPERT_PROJECTIONS} & {*self.config.targets})
        if has_experts and pruned:
            raise ValueError(
                f"targets: {', '.join(pruned)} are in this model's experts, which amber_ext does not prune in vLLM; "
                "allowed are projections of attention, for example targets=('q_proj',)"
            )

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> QuantizeMethodBase | None:
        """A method of ours for linear layers with a pruned or 8-bit part, vLLM's own for the others.

        Raises:
            ValueError: the engine's settings are not allowed with amber_ext. RuntimeError: nor is this version of vLLM.
        """
        if not isinstance(layer, LinearBase):
            return None
        projections = self._projections(layer, prefix)
        if all(projection.pattern is None for projection in projections):
            return UnquantizedLinearMethod()
        config = get_current_vllm_config()
        check_engine(config)
        follow_runner(config)
        return PrunedLinearMethod(projections, prefix, config)

    def _projections(self, layer: LinearBase, prefix: str) -> list[Projection]:
        merged = prefix.rpartition(".")[2]
        config, number = self.config, layer_number(prefix)
        return [
            Projection(
                name,
                decide_projection(config, name, number, layer.input_size)[0],
                config.score,
                config.rescale,
                config.backend,
            )
            for name in self.packed_modules_mapping.get(merged, [merged])
        ]


def check_engine(config: VllmConfig) -> None:
    """Raises ValueError for settings under which prefill and decode cannot be told apart."""
    mode = config.compilation_config.cudagraph_mode
    if mode is not None and mode.mixed_mode() == CUDAGraphMode.FULL:
        raise ValueError(
            f"cudagraph_mode: {mode} is not allowed with amber_ext: a graph of a mixed batch would freeze its phases; "
            "allowed: NONE, PIECEWISE, FULL_DECODE_ONLY, FULL_AND_PIECEWISE"
        )
    if config.parallel_config.use_ubatching:
        raise ValueError(
            "enable_dbo: True is not allowed with amber_ext, which needs a step's batch in one piece"
        )
