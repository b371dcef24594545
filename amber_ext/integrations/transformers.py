"""``from_pretrained(path, quantization_config=AmberQuantConfig(...))``, ``save_pretrained`` and back.

Pruning leaves the checkpoint as it is: weights are stored dense, and scores are computed from them when they are
loaded. Outstanding-sparse stores 8-bit weights, scales and factors, and what each layer is in ``config.json``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from amber_ext.versions import transformers_problem

if (problem := transformers_problem()) is not None:
    raise ImportError(f"amber_ext: {problem}")

from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from amber_ext.config import AmberConfig, OutstandingSparseConfig
from amber_ext.layers.fused.fuse import fuse_blocks
from amber_ext.layers.pruned_linear import AmberLinear
from amber_ext.layers.quantized_linear import QuantizedLinear
from amber_ext.layers.replace import replace_modules
from amber_ext.layers.weight_copies import WeightCopies
from amber_ext.methods.checkpoint import (
    CONFIG_DIGEST,
    QUANT_METHOD,
    check_config_file,
    check_saved,
    checksums,
    config_digest,
    describe_layers,
    empty_layers,
)
from amber_ext.methods.direct_reads import mark_quantized
from amber_ext.methods.quantize import quantize_
from amber_ext.methods.report import linears_bytes
from amber_ext.methods.sparsify import remember_config, remembered_config, sparsify_
from amber_ext.phase import install_phase_hooks


class AmberQuantConfig(QuantizationConfigMixin):
    """What ``from_pretrained`` does to a model; saved in its ``config.json``.

    Args:
        config: an `AmberConfig` prunes (`sparsify_`), an `OutstandingSparseConfig` quantises (`quantize_`).
        batches: token ids ``[B, T]`` int64 to calibrate an `OutstandingSparseConfig` with; not saved.
        quant_method, kind, layers, checksums, config_sha256: what a saved ``config.json`` holds; not for callers.

    Raises:
        TypeError: config is neither. ValueError: a saved entry is not valid.
    """

    def __init__(
        self,
        config: AmberConfig | Mapping[str, object] | None = None,
        batches: Iterable[torch.Tensor] | None = None,
        *,
        quant_method: str = QUANT_METHOD,
        kind: str | None = None,
        layers: Mapping[str, Mapping[str, object]] | None = None,
        checksums: Mapping[str, str] | None = None,
        config_sha256: str | None = None,
    ) -> None:
        classes = {"pruned": AmberConfig, "quantized": OutstandingSparseConfig}
        if isinstance(config, Mapping) and kind in classes:
            config = classes[kind].from_dict(config)
        if not isinstance(config, AmberConfig):
            raise TypeError(
                f"config: {type(config).__name__} is not allowed; it must be an AmberConfig or an "
                "OutstandingSparseConfig"
            )
        if quant_method != QUANT_METHOD:
            raise ValueError(f"quant_method: {quant_method!r} is not allowed; it must be {QUANT_METHOD!r}")
        self.quant_method = quant_method
        self.config = config
        self.batches = batches
        self.layers = dict(layers or {})
        self.checksums = dict(checksums or {})
        self.config_sha256 = config_sha256

    @property
    def quantizes(self) -> bool:
        """Whether weights become 8-bit."""
        return isinstance(self.config, OutstandingSparseConfig)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types."""
        fields = {
            "quant_method": QUANT_METHOD,
            "kind": "quantized" if self.quantizes else "pruned",
            "config": self.config.to_dict(),
        }
        saved = {
            "layers": self.layers,
            "checksums": self.checksums,
            CONFIG_DIGEST: self.config_sha256,
        }
        return fields | {name: value for name, value in saved.items() if value}


class AmberHfQuantizer(HfQuantizer):
    """Puts pruned or 8-bit layers into a model that transformers loads.

    Attributes:
        report: of `sparsify_` or `quantize_`; None for a model that was saved quantised.
    """

    requires_calibration = False
    quantization_config: AmberQuantConfig
    report = None

    def _process_model_before_weight_loading(
        self, model: torch.nn.Module, checkpoint_files: list[str] | None = None, **kwargs: object
    ) -> None:
        # On the meta device: what wraps layers later (device_map, tensor parallelism) wraps the pruned ones.
        if not self.quantization_config.quantizes:
            self.report = sparsify_(model, self.quantization_config.config)
        elif self.pre_quantized:
            # Read anew: model.config may differ from the file where the caller asked for it.
            if self.quantization_config.config_sha256 and checkpoint_files:
                path = Path(checkpoint_files[0]).with_name("config.json")
                check_config_file(path, self.quantization_config.config_sha256)
            if not self.quantization_config.layers:
                raise ValueError(
                    "quantization_config: it has no 'layers'; the saved config.json is not complete"
                )
            try:
                layers = empty_layers(model, self.quantization_config.layers)
            except (AttributeError, KeyError, TypeError) as error:
                raise ValueError(
                    f"quantization_config: its 'layers' do not fit this model: {error!r}"
                ) from None
            for layer in layers.values():
                if isinstance(layer, QuantizedLinear):
                    layer.weight = layer.weight.flatten()
            replace_modules(model, layers)

    def _process_model_after_weight_loading(
        self, model: torch.nn.Module, **kwargs: object
    ) -> torch.nn.Module:
        processes = getattr(model, "_tp_size", None) or 1
        if self.quantization_config.quantizes and processes > 1:
            raise ValueError(
                f"quantization_config: 8-bit layers cannot be split between {processes} processes; tensor parallelism is "
                "for an AmberConfig"
            )
        if self.quantization_config.quantizes and not self.pre_quantized:
            self.report = quantize_(model, self.quantization_config.config, self.quantization_config.batches)
            self.quantization_config.batches = None
            return model
        mark_quantized(model, self.quantization_config.quantizes)
        for name, layer in model.named_modules():
            try:
                if isinstance(layer, QuantizedLinear):
                    layer.weight = layer.weight.view(layer.out_features, layer.in_features)
                if isinstance(layer, AmberLinear):
                    layer.compute_channel_scale()
                if isinstance(layer, WeightCopies):
                    layer.keep_copies()
            except ValueError as error:
                raise ValueError(f"layer '{name}': {error}") from None
        # transformers only warns of tensors that a checkpoint lacks, and leaves their memory as it was.
        check_saved(model, self.quantization_config.layers, self.quantization_config.checksums)
        fuse_blocks(model, self.quantization_config.config.fuse)
        install_phase_hooks(model, self.quantization_config.config.cached_prompts)
        remember_config(model, self.quantization_config.config)
        if self.report is not None:
            self.report = dataclasses.replace(self.report, bytes_after=linears_bytes(model))
        return model

    def get_state_dict_and_metadata(
        self, model: torch.nn.Module
    ) -> tuple[dict[str, torch.Tensor] | None, dict[str, str]]:
        """What ``save_pretrained`` writes; it asks before it writes ``config.json``, so the manifest is made here.

        8-bit weights are stored flat: without amber_ext, transformers then refuses them instead of taking 8-bit
        numbers for weights.
        """
        if not self.quantization_config.quantizes:
            return None, {}
        self.quantization_config.layers = describe_layers(model)
        self.quantization_config.checksums = checksums(model)
        # As save_pretrained sets them between this call and writing the file.
        model.config.dtype = str(model.dtype).removeprefix("torch.")
        model.config.architectures = [type(model).__name__]
        fields = json.loads(model.config.to_json_string())
        self.quantization_config.config_sha256 = config_digest(fields)
        names = [name for name, layer in model.named_modules() if isinstance(layer, QuantizedLinear)]
        state = model.state_dict()
        return state | {f"{name}.weight": state[f"{name}.weight"].flatten() for name in names}, {}

    def is_serializable(self, **kwargs: object) -> bool:
        """Whether ``save_pretrained`` may run."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Backward through a pruned layer raises."""
        return False

    @property
    def is_compileable(self) -> bool:
        """``torch.compile`` sees one op a layer."""
        return True


def attach_config(model: torch.nn.Module, config: AmberConfig | None = None) -> None:
    """Makes ``save_pretrained`` keep what `sparsify_` or `quantize_` did to a model that was loaded without us.

    Models from GGUF files need it: transformers takes no ``quantization_config`` beside those.

    Args:
        config: what the model was pruned or quantised with; None for what the model itself remembers.

    Raises:
        ValueError: the model's layers are not what ``config`` makes of them, or it remembers none.
    """
    config = config or remembered_config(model)
    if config is None:
        raise ValueError(
            "config: None is not allowed for a model that neither sparsify_ nor quantize_ changed"
        )
    quantization = AmberQuantConfig(config)
    kinds = {fields["kind"] for fields in describe_layers(model).values()}
    wanted = "quantized" if quantization.quantizes else "pruned"
    if wanted not in kinds or (wanted == "pruned" and "quantized" in kinds):
        found = " and ".join(sorted(kinds)) or "only dense"
        raise ValueError(f"model: it has {found} layers; this configuration needs {wanted} ones")
    model.config.quantization_config = quantization
    model.hf_quantizer = AmberHfQuantizer(quantization, pre_quantized=True)


def register() -> None:
    """Tells transformers; again changes nothing."""
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    if QUANT_METHOD not in AUTO_QUANTIZER_MAPPING:
        register_quantization_config(QUANT_METHOD)(AmberQuantConfig)
        register_quantizer(QUANT_METHOD)(AmberHfQuantizer)
