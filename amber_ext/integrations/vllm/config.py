"""What a model folder's ``quantization_config`` makes of each linear layer, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from vllm.compilation import backends
from vllm.compilation.breakable_cudagraph import is_breakable_cudagraph_enabled
from vllm.config import CUDAGraphMode, VllmConfig, get_current_vllm_config
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig, QuantizeMethodBase
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import (
    CompressedTensorsConfig,
    CompressedTensorsLinearMethod,
)

from amber_ext.config import AmberConfig, OutstandingSparseConfig
from amber_ext.integrations.vllm.compressed_tensors import PrunedCompressedMethod
from amber_ext.integrations.vllm.parts import Projection
from amber_ext.integrations.vllm.pruned import PrunedLinearMethod
from amber_ext.integrations.vllm.quantized import QuantizedLinearMethod
from amber_ext.integrations.vllm.runners import follow_runner, wrap
from amber_ext.layers.sites import decide_projection, layer_number, score_of_projection
from amber_ext.methods.checkpoint import QUANT_METHOD

# What vLLM calls models that make drafts, while it builds them.
_DRAFTS = (
    "draft_model",
    "eagle_head",
    "dflash_head",
    "dspark_head",
    "medusa_head",
    "lilicorr_head",
    "extract_hidden_states",
)
# What transformers' configurations call the number of experts.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
# The projections of experts; what else they are called is not a target of any configuration that prunes them.
_EXPERT_PROJECTIONS = ("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")


# Where `hf_overrides` tells how to prune a checkpoint that has a quantisation of its own.
OVERRIDE = "amber_ext"


class AmberVllmConfig(QuantizationConfig):
    """The ``quantization_config`` of a model folder, as vLLM reads it.

    Args:
        config: None is an `AmberConfig` with its defaults, for ``quantization="amber_ext"`` on a dense folder.
        layers: of a folder with 8-bit weights: what each layer is (`methods.checkpoint.describe_layers`).
        inner: vLLM's own, of a compressed-tensors checkpoint.
    """

    def __init__(
        self,
        config: AmberConfig | None = None,
        layers: Mapping[str, Mapping[str, object]] | None = None,
        inner: CompressedTensorsConfig | None = None,
    ) -> None:
        super().__init__()
        self.config, self.layers, self.inner = config or AmberConfig(), layers, inner
        self.kv_cache_scheme = getattr(inner, "kv_cache_scheme", None)  # vLLM's attention asks for it

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
    def override_quantization_method(
        cls, hf_quant_cfg: Mapping[str, object], user_quant: str | None, hf_config: object | None = None
    ) -> str | None:
        """Takes compressed-tensors checkpoints, where the user asks for it."""
        wanted = user_quant == QUANT_METHOD and hf_quant_cfg.get("quant_method") == "compressed-tensors"
        return QUANT_METHOD if wanted else None

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> AmberVllmConfig:
        """Raises ValueError for what the plugin does not serve."""
        if config.get("quant_method") == "compressed-tensors":
            return cls(inner=CompressedTensorsConfig.from_config(dict(config)))
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
        override = getattr(hf_config, OVERRIDE, None)
        if override is not None:
            self.config = AmberConfig.from_dict(override)
        text = getattr(hf_config, "text_config", hf_config)
        has_experts = any((getattr(text, name, None) or 0) > 1 for name in _EXPERTS)
        pruned = sorted({*_EXPERT_PROJECTIONS} & {*self.config.targets})
        if has_experts and pruned:
            raise ValueError(
                f"targets: {', '.join(pruned)} are in this model's experts, which amber_ext does not prune in vLLM; "
                "allowed are projections of attention, for example targets=('q_proj',)"
            )

    def apply_vllm_mapper(self, hf_to_vllm_mapper: object) -> None:
        """A model has other names in vLLM than in its checkpoint."""
        if self.inner is not None:
            self.inner.apply_vllm_mapper(hf_to_vllm_mapper)
        if self.layers is not None:
            self.layers = hf_to_vllm_mapper.apply_dict(dict(self.layers))

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> QuantizeMethodBase | None:
        """A method of ours for linear layers with a pruned or 8-bit part, vLLM's own for the others.

        Raises:
            ValueError: vLLM keeps in one weight what has 8 bits and what has not. RuntimeError: this version of vLLM is not
                followed.
        """
        own = None
        if self.inner is not None:
            self.inner.packed_modules_mapping = self.packed_modules_mapping
            own = self.inner.get_quant_method(layer, prefix)
        if not isinstance(layer, LinearBase):
            return own
        fields = self._fields(layer, prefix)
        config = get_current_vllm_config()
        method = own or UnquantizedLinearMethod()
        if backends.model_tag in _DRAFTS and self.layers is None:
            return method  # what a draft model computes is verified by the model itself
        if any(part["kind"] == "quantized" for part in fields):
            check_merged(fields, prefix)
            method = QuantizedLinearMethod(fields, prefix, config)
        elif any(part["kind"] == "pruned" for part in fields):
            projections = [Projection.of(part) for part in fields]
            if isinstance(own, CompressedTensorsLinearMethod):
                method = PrunedCompressedMethod(own, projections, prefix, config)
            else:
                method = PrunedLinearMethod(projections, prefix, config)
        else:
            return method
        follow_runner(config)
        return method

    def _fields(self, layer: LinearBase, prefix: str) -> list[dict[str, object]]:
        """What each projection of a layer is: as `methods.checkpoint.describe_layers` says, and its name."""
        parent, _, merged = prefix.rpartition(".")
        fields = []
        for name in self.packed_modules_mapping.get(merged, [merged]):
            if self.layers is not None:
                found = self.layers.get(f"{parent}.{name}", {"kind": "dense"})
            else:
                pattern, _ = decide_projection(self.config, name, layer_number(prefix), layer.input_size)
                kind = "dense" if pattern is None else "pruned"
                score = score_of_projection(self.config, name)
                found = {**self.config.to_dict(), "kind": kind, "pattern": str(pattern), "score": score}
            fields.append({**found, "name": name})
        return fields


def check_merged(fields: Sequence[Mapping[str, object]], prefix: str) -> None:
    """Raises ValueError for projections that vLLM keeps in one weight, and of which some have 8 bits."""
    if len({(part["kind"], part.get("dtype")) for part in fields}) > 1:
        names = ", ".join(str(part["name"]) for part in fields)
        raise ValueError(
            f"unquantized: vLLM keeps {names} of '{prefix}' in one weight; it must name all of them, or none"
        )


def check_engines() -> None:
    """Has vLLM refuse engines with settings that amber_ext does not serve, while their configuration is built.

    vLLM asks nobody then, so it is done behind its own checks; again changes nothing.
    """

    def check(call: Callable[[], object], arguments: dict[str, object]) -> None:
        call()
        config = arguments["self"]
        if isinstance(config.quant_config, AmberVllmConfig):
            check_engine(config)

    wrap(VllmConfig, "__post_init__", check)


def check_engine(config: VllmConfig) -> None:
    """Raises ValueError for settings that 8-bit weights lack, or under which prefill and decode cannot be told apart."""
    processes = config.parallel_config.tensor_parallel_size
    if config.quant_config.layers is not None and processes > 1:
        raise ValueError(
            f"tensor_parallel_size: {processes} is not allowed with 8-bit weights of amber_ext; it must be 1"
        )
    mode = config.compilation_config.cudagraph_mode
    if mode is not None and mode.mixed_mode() == CUDAGraphMode.FULL:
        raise ValueError(
            f"cudagraph_mode: {mode} is not allowed with amber_ext: a graph of a mixed batch would freeze its phases; "
            "allowed: NONE, PIECEWISE, FULL_DECODE_ONLY, FULL_AND_PIECEWISE"
        )
    if mode and is_breakable_cudagraph_enabled():
        raise ValueError(
            "VLLM_USE_BREAKABLE_CUDAGRAPH: 1 is not allowed with amber_ext: its graphs would freeze the phases of pruned layers"
        )
    if config.cache_config.kv_sharing_fast_prefill:
        raise ValueError(
            "kv_sharing_fast_prefill: True is not allowed with amber_ext, which needs a step's batch in one piece"
        )
    if config.parallel_config.use_ubatching:
        raise ValueError(
            "enable_dbo: True is not allowed with amber_ext, which needs a step's batch in one piece"
        )
